"""What this machine has of what the studies need: each check says what it found and, where
something lacks, the remedy.
"""

from __future__ import annotations

import csv
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from replicate.errors import UserError
from replicate.pipeline import environment, runs
from replicate.pipeline import git as revisions
from replicate.pipeline.stages import paper

PROCESS, FREE = 0.8e9, 1e9  # bytes that a process takes of memory, and the demo of a disk


@dataclass(frozen=True)
class Check:
    """`remedy` is empty where nothing lacks. `needs`: the studies, or the PDF, that cannot be made
    without.
    """

    name: str
    found: str
    remedy: str = ""
    needs: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.remedy


def refused(name: str, error: UserError, needs: Collection[str]) -> Check:
    """The check that a line of ours answers: what lacks; the remedy."""
    found, _, remedy = str(error).partition("; ")
    return Check(name, found, remedy or "see README.md", tuple(needs))


def python(studies: Collection[str]) -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    return Check(
        "Python",
        found,
        "" if sys.version_info[:2] == (3, 11) else "make setup PYTHON=python3.11",
        tuple(studies),
    )


def packages(locks: Path, studies: Collection[str]) -> Check:
    """Those installed beside those locked, torch as the build that it is."""
    try:
        build = "cpu.lock" if "+cpu" in version("torch") else "cuda.lock"
    except PackageNotFoundError:
        build = "cpu.lock"
    try:
        lines = [
            line
            for name in ("base.lock", build)
            for line in (locks / name).read_text(encoding="utf-8").splitlines()
        ]
    except OSError as error:
        return Check(
            "packages",
            f"{error.filename}: cannot be read",
            "run this from the root of a clone",
            tuple(studies),
        )
    locked = [Requirement(line.rstrip("\\ ")) for line in lines if re.match(r"[A-Za-z0-9]", line)]
    lacking = []
    for requirement in locked:
        if requirement.marker is None or requirement.marker.evaluate():
            try:
                installed = version(requirement.name)
            except PackageNotFoundError:
                installed = "missing"
            if installed == "missing" or not requirement.specifier.contains(
                installed, prereleases=True
            ):
                lacking.append(
                    f"{requirement.name} {installed} for {str(requirement.specifier).removeprefix('==')}"
                )
    if not lacking:
        return Check("packages", f"{len(locked)} as locked", needs=tuple(studies))
    more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
    return Check(
        "packages",
        f"not as locked: {', '.join(lacking[:3])}{more}",
        "remove .venv and run make setup",
        tuple(studies),
    )


def processor() -> Check:
    """What the CPU has of what makes it fast; results are the same, to rounding, without."""
    file = Path("/proc/cpuinfo")
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    flags = set(
        re.findall(
            r"\w+",
            next(
                (line for line in text.splitlines() if line.startswith(("flags", "Features"))), ""
            ),
        )
    )
    named = {
        "avx2": "AVX2",
        "avx512f": "AVX-512",
        "avx512_bf16": "bfloat16",
        "amx_bf16": "AMX bfloat16",
    }
    has = [name for flag, name in named.items() if flag in flags] or [
        "no vector unit that is known of"
    ]
    return Check(
        "processor",
        f"{environment.processor()}, {len(os.sched_getaffinity(0))} cores, {', '.join(has)}",
    )


def memory(processes: int | str, studies: Collection[str]) -> Check:
    count = len(os.sched_getaffinity(0)) if processes == "auto" else int(processes)
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text(encoding="utf-8").strip() if limit.is_file() else "max"
    free = min(
        float(psutil.virtual_memory().available), float("inf") if text == "max" else float(text)
    )
    found = f"{free / 1e9:.1f} GB free for {count} processes"
    return Check(
        "memory",
        found,
        "" if free > count * PROCESS else "lower machine.processes in params.yaml",
        tuple(studies),
    )


def graphics(studies: Collection[str]) -> Check:
    """The driver's GPUs beside those that torch finds."""
    try:
        command = [
            "nvidia-smi",
            "--query-gpu=name,memory.total,driver_version",
            "--format=csv,noheader,nounits",
        ]
        said = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
        cards = [
            [cell.strip() for cell in row] for row in csv.reader(said.splitlines()) if len(row) == 3
        ]
    except (OSError, subprocess.SubprocessError):
        cards = []
    driver = (
        f"{len(cards)} × {cards[0][0]} by its driver {cards[0][2]}" if cards else "no NVIDIA driver"
    )
    try:
        import torch
    except (ImportError, OSError) as error:
        return Check(
            "GPU",
            f"{driver}, and torch cannot be imported ({type(error).__name__})",
            "make setup",
            tuple(studies),
        )
    if not torch.cuda.is_available():
        remedy = (
            "remove .venv and run make setup, for torch's CUDA build"
            if torch.version.cuda is None
            else "update its driver"
        )
        remedy = (
            remedy
            if cards
            else "use a machine with a CUDA GPU; python -m replicate plan --device h100 tells which will do"
        )
        return Check(
            "GPU", f"{driver}, and torch {torch.__version__} finds none", remedy, tuple(studies)
        )
    try:
        free, total = torch.cuda.mem_get_info()
    except RuntimeError as error:
        return Check(
            "GPU",
            f"{driver}: {str(error).splitlines()[0]}",
            "see nvidia-smi for who has it",
            tuple(studies),
        )
    found = f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free"
    return Check("GPU", f"{found}; python -m replicate plan tells what fits", needs=tuple(studies))


def room(name: str, folder: Path, studies: Collection[str], needed: float = FREE) -> Check:
    """Whether a folder, or the one that it will be made in, can be written to and has room for so
    many bytes.
    """
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            free = shutil.disk_usage(place).free
    except OSError as error:
        return Check(
            name,
            f"{folder} cannot be written to ({error.strerror})",
            "see its permissions, or name another",
            tuple(studies),
        )
    remedy = (
        "" if free > needed else f"free {(needed - free) / 1e9:.0f} GB more there, or name another"
    )
    return Check(
        name,
        f"{folder}, {free / 1e9:.0f} GB free of {needed / 1e9:.0f} needed",
        remedy,
        tuple(studies),
    )


def repository(studies: Collection[str]) -> Check:
    """Only verify, the run log and `dvc exp` ask git itself; DVC needs the repository alone."""
    try:
        commit, dirty = revisions.state(runs.CODE)
    except UserError as error:
        return refused("git", error, () if Path(".git").exists() else studies)
    return Check(
        "git",
        f"{(commit or 'no commit yet')[:8]}, {'changed since' if dirty else 'code and parameters as committed'}",
    )


def dvc(studies: Collection[str]) -> Iterator[Check]:
    """The repository, its cache, and locks that a process which was killed may have left."""
    try:
        from dvc.exceptions import DvcException
        from dvc.repo import Repo
    except ImportError:
        yield Check("DVC", "cannot be imported", "make setup", tuple(studies))
        return
    try:
        with Repo() as repo:
            cache, tmp = Path(repo.cache.local.path), Path(repo.tmp_dir or ".dvc/tmp")
    except DvcException as error:
        lack = " ".join(str(error).split())
        yield Check(
            "DVC",
            lack,
            "run this from the root of a clone; restore .dvc/config from git if it is damaged",
            tuple(studies),
        )
        return
    yield locks(tmp, studies)
    yield room("DVC cache", cache, studies)


def locks(folder: Path, studies: Collection[str]) -> Check:
    table, lock = folder / "rwlock", folder / "lock"
    try:
        entries = json.loads(table.read_text(encoding="utf-8")) if table.exists() else {}
        writers, readers = (
            entries.get("write", {}).values(),
            [entry for some in entries.get("read", {}).values() for entry in some],
        )
        alive = sorted(
            {
                str(entry["pid"])
                for entry in (*writers, *readers)
                if psutil.pid_exists(int(entry["pid"]))
            }
        )
    except (OSError, ValueError, AttributeError, LookupError, TypeError):
        return Check(
            "DVC",
            f"{table.name} is damaged, and stops every dvc command",
            f"remove {os.path.relpath(table)}",
            tuple(studies),
        )
    if alive:
        return Check(
            "DVC",
            f"a dvc command is at work here (process {', '.join(alive)})",
            "let it end, or end it",
            tuple(studies),
        )
    if lock.is_file():
        with lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return Check(
                    "DVC", "a dvc command holds the lock", "let it end, or end it", tuple(studies)
                )
    return Check("DVC", f"{version('dvc')}, no lock held", needs=tuple(studies))


def latex() -> Check:
    try:
        paper.check()
    except UserError as error:
        return refused("LaTeX", error, ("pdf",))
    return Check("LaTeX", "latexmk is here", needs=("pdf",))
