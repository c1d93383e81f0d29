"""Checks what this machine has and lacks for the work, and prints a remedy for what it lacks."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from replicate.errors import UserError
from replicate.models import hub
from replicate.pipeline import environment, git
from replicate.pipeline.config import Config
from replicate.pipeline.config.sources import HubFile, OnHub

MAKE = "remove .venv and run `make setup`"
WORKER = 0.8e9  # bytes of memory that a worker takes with a small model
File = tuple[str, str, str, str]  # repository, revision, file, kind of repository
PATIENCE = 4.0  # seconds to wait for an answer of the hub


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: the thing that was checked.
        found: what the check found, in words.
        remedy: what to do; empty if nothing is missing.
        needed_by: the studies that cannot run without this thing.
    """

    name: str
    found: str
    remedy: str = ""
    needed_by: tuple[str, ...] = ()


def run(config: Config, as_json: bool) -> bool:
    """Prints every check, and which studies can run here.

    Returns:
        Whether the study `demo` can run; if params.yaml has no `demo`, whether all studies can.
    """
    checks = list(examine(config))
    lacking = {
        study: list(dict.fromkeys(c.name for c in checks if c.remedy and study in c.needed_by))
        for study in config.studies
    }
    if as_json:
        print(json.dumps({"checks": [asdict(check) for check in checks], "lacking": lacking}))
    else:
        for check in checks:
            remedy = f"; {check.remedy}" if check.remedy else ""
            remedy += f" (for {', '.join(check.needed_by)})" if remedy and check.needed_by else ""
            print(f"{'lack' if remedy else 'ok':<5} {check.name:<10} {check.found}{remedy}")
        for study, names in lacking.items():
            print(f"{study}: {'no, because of ' + ', '.join(names) if names else 'yes'}")
    return not (lacking["demo"] if "demo" in lacking else any(lacking.values()))


def examine(config: Config) -> Iterator[Check]:
    """Yields a check of each thing that the studies need."""
    studies, free = tuple(config.studies), free_memory()
    remedy = "" if sys.version_info[:2] == (3, 11) else "make setup PYTHON=python3.11"
    yield Check("Python", sys.version.split()[0], remedy, studies)
    yield packages(Path("requirements"), studies)
    cores = environment.cores()
    yield Check("processor", f"{environment.processor()}, {cores} cores")
    workers = cores if config.machine.workers == "auto" else config.machine.workers
    remedy = "" if free > workers * WORKER else "lower machine.workers in params.yaml"
    yield Check("memory", f"{free / 1e9:.1f} GB free for {workers} workers", remedy, studies)
    on_gpu = {name for name, family in config.families.items() if family.device == "cuda"}
    yield gpu(tuple(name for name, s in config.studies.items() if on_gpu & {*s.families}))
    yield disk(studies)
    yield dvc(Path(".dvc"), studies)
    yield identity()
    yield from hub_access(config)


def free_memory() -> float:
    """Returns the free bytes of memory, or the container's limit in bytes if that is lower."""
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text(encoding="utf-8").strip() if limit.is_file() else "max"
    return min(float(psutil.virtual_memory().available), math.inf if text == "max" else float(text))


def packages(locks: Path, studies: tuple[str, ...]) -> Check:
    """Compares the installed packages with the locked ones."""
    build = "cpu" if "+cpu" in (environment.versions(["torch"])["torch"] or "") else "cuda"
    lines = "\n".join((locks / f"{name}.lock").read_text() for name in ("base", build)).splitlines()
    locked = [Requirement(line.rstrip("\\ ")) for line in lines if re.match(r"[A-Za-z0-9]", line)]
    locked = [each for each in locked if each.marker is None or each.marker.evaluate()]
    installed = environment.versions([each.name for each in locked])
    wrong = [
        f"{each.name} {installed[each.name] or 'missing'} for{each.specifier}"
        for each in locked
        if not each.specifier.contains(installed[each.name] or "0", prereleases=True)
    ]
    found = f"not as locked: {', '.join(wrong[:3])}" if wrong else f"{len(locked)} as locked"
    return Check("packages", found, MAKE if wrong else "", studies)


def gpu(studies: tuple[str, ...]) -> Check:
    """Looks for a GPU that torch can use."""
    try:
        import torch

        if torch.cuda.is_available():
            free = f"{torch.cuda.mem_get_info()[0] / 1e9:.0f} GB free"
            return Check("GPU", f"{torch.cuda.get_device_name()}, {free}")
    except (ImportError, OSError, RuntimeError) as error:  # such as CUDA's, if others fill the GPU
        said = str(error).partition("\n")[0]
        return Check("GPU", said, f"see `nvidia-smi`, or {MAKE}", studies)
    remedy = "use a machine with one; `python -m replicate plan --device h100` tells which will do"
    return Check("GPU", f"torch {torch.__version__} finds none", remedy, studies)


def disk(studies: tuple[str, ...]) -> Check:
    """Checks that the stages can write here, and that 1 GB of disk is free."""
    place = Path("data") if Path("data").is_dir() else Path()
    if not os.access(place, os.W_OK):
        return Check("disk", f"{place} may not be written", "give write access to it", studies)
    free = shutil.disk_usage(place).free / 1e9
    return Check("disk", f"{free:.0f} GB free", "" if free > 1 else "free 1 GB", studies)


def dvc(folder: Path, studies: tuple[str, ...]) -> Check:
    """Checks DVC's file of locks. A killed process can damage it, and then no dvc command runs."""
    if not folder.is_dir():
        return Check("DVC", "no DVC project here", "run this from the root of a clone", studies)
    table = folder / "tmp" / "rwlock"
    try:
        entries = json.loads(table.read_text(encoding="utf-8")) if table.exists() else {}
        held = [*entries.get("write", {}).values()]
        held += [entry for some in entries.get("read", {}).values() for entry in some]
        alive = [entry["pid"] for entry in held if psutil.pid_exists(int(entry["pid"]))]
    except (ValueError, AttributeError, LookupError, TypeError):
        return Check("DVC", f"{table} is damaged", f"remove {table}", studies)
    if alive:
        return Check("DVC", f"process {alive[0]} is at work here", "let it end, or end it", studies)
    return Check("DVC", f"{version('dvc')}, no lock held")


def identity() -> Check:
    """Checks that git knows who commits; without it, `dvc exp run` fails."""
    try:
        lacking = [key for key in ("user.name", "user.email") if not git.setting(key)]
    except UserError as error:
        found, _, remedy = str(error).partition("; ")
        return Check("git", found, remedy or "see `git status`")
    remedy = " and ".join(f"`git config --global {key} …`" for key in lacking)
    found = f"no {' and '.join(lacking)}, which `dvc exp run` needs" if lacking else "an identity"
    return Check("git", found, remedy and f"run {remedy}")


def hub_access(config: Config) -> Iterator[Check]:
    """Checks the hub's token, and asks the hub for each repository that its cache here lacks."""
    wanted = hub_files(config)
    lacking = {key: value for key, value in wanted.items() if not hub.cached(*key)}
    held = False
    with suppress(UserError):  # the first repository below tells why
        held = bool(hub.token())
    token = "a token" if held else "no token, which gated repositories need"
    yield Check("hub", f"{token}; the cache lacks {len(lacking)} of {len(wanted)} repositories")
    for (repository, revision, name, kind), studies in lacking.items():
        try:
            hub.ask(repository, revision, name or "config.json", kind, PATIENCE)
        except UserError as error:
            found, _, remedy = str(error).partition("; ")
            silent = isinstance(error, hub.UnreachableError)
            needed_by = set().union(*lacking.values()) if silent else studies
            yield Check("hub", found, remedy or "see README.md", tuple(sorted(needed_by)))
            if silent:
                return


def hub_files(config: Config) -> dict[File, set[str]]:
    """Returns the files of the hub that params.yaml names, each with the studies that need it.

    A key is (repository, revision, file, kind of repository). If the file is "", it stands for all
    weights of a model.
    """
    found: dict[File, set[str]] = {}
    for study, settings in config.studies.items():
        for family in (config.families[name] for name in settings.families):
            sources: list[tuple[object, str, str]] = [
                (config.corpora[family.corpus], "", "dataset")
            ]
            sources.append((config.tokenizers[family.tokenizer], "tokenizer.json", "model"))
            sources += [(model, "", "model") for model in family.models.values()]
            for source, name, kind in sources:
                if isinstance(source, OnHub):
                    file = source.file if isinstance(source, HubFile) else name
                    key = (source.repository, source.revision, file, kind)
                    found.setdefault(key, set()).add(study)
    return found
