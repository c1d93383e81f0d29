"""`python -m benchmarks.demo`: how long a newcomer waits on this machine, into results.json.

In a clone of the commit that is checked out, with the packages of the present environment, it runs
`make demo` with nothing computed, `make demo` again, and `make test`, and records the seconds of
each and of the demo's stages, in order. `load` is what other processes used of the machine
meanwhile, in cores; below 0.3 the machine counts as quiet.

`python -m benchmarks.demo --log` reads the stages of the last finished run of the control study
from the run log of this folder instead, because that study takes an hour.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
import psutil

from benchmarks import results
from replicate.pipeline import config as parameters
from replicate.pipeline import environment, git, outlook

ROOT = Path(__file__).parents[1]
Stages = list[tuple[str, str | None, float]]


def spent(lines: Iterable[dict[str, Any]], arguments: set[str]) -> Stages:
    """Returns the seconds of the last finished run of each stage, in the order of the log.

    Args:
        lines: of the run log.
        arguments: the names of a study and of its families.
    """
    done = [line for line in lines if line["ended"] == "done" and line["argument"] in arguments]
    seconds = {(line["stage"], line["argument"]): line["seconds"] for line in done}
    return [(*stage, each) for stage, each in seconds.items()]


def read(log: Path, study: str) -> Stages:
    """Returns `spent` of a study of params.yaml, from a file."""
    if not log.is_file():
        sys.exit(f"error: {log}: missing; run `dvc repro {study}` first")
    lines = map(json.loads, log.read_text(encoding="utf-8").splitlines())
    return spent(lines, {study, *parameters.load().studies[study].families})


def others() -> dict[tuple[int, float], float]:
    """Returns the seconds that each process outside of this session has worked so far."""
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(process.pid) != os.getsid(0):
                used = process.cpu_times()
                found[process.pid, process.create_time()] = used.user + used.system
    return found


@contextmanager
def watched(found: dict[str, Any]) -> Iterator[None]:
    """Adds to `found` what processes outside of this session use meanwhile, in cores.

    A process that ends before the body does is not seen.
    """
    start, before = time.perf_counter(), others()
    yield
    used = sum(seconds - before.get(process, 0.0) for process, seconds in others().items())
    found["load"] = used / (time.perf_counter() - start)


def git_here(folder: Path, *command: str) -> None:
    subprocess.run(["git", *command], cwd=folder, check=True)  # noqa: S607


def timed(folder: Path, target: str) -> float:
    """Returns the seconds of a make target, which must succeed."""
    start = time.perf_counter()
    with (folder / f"{target}.log").open("w") as log:
        command = ["make", target, f"VENV={sys.prefix}"]
        ended = subprocess.run(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    if ended.returncode:
        tail = Path(log.name).read_text().splitlines()[-20:]
        sys.exit("\n".join([f"error: make {target} failed", *tail]))
    print(f"make {target}: {time.perf_counter() - start:.1f} s", flush=True)
    return time.perf_counter() - start


@click.command(help=__doc__)
@click.option("--log", is_flag=True, help="Only read the run log.")
@click.option("--no-tests", is_flag=True, help="Leave `make test` out.")
def main(log: bool, no_tests: bool) -> None:
    about = {"commit": git.commit("HEAD"), "processor": environment.processor()}
    if log:
        study = "control"
        results.add(**{study: about | {"stages": read(ROOT / "logs" / "runs.jsonl", study)}})
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "clone"
        git_here(ROOT, "clone", "-q", str(ROOT), str(folder))
        # without the lock DVC computes every stage, whatever machine the commit comes from
        (folder / "dvc.lock").unlink()
        found: dict[str, Any] = about | {"probe": outlook.probe()}
        with watched(found):
            found["wall"] = timed(folder, "demo")
            found["stages"] = read(folder / "logs" / "runs.jsonl", "demo")
            results.add(demo=found)
            found["again"] = timed(folder, "demo")
            git_here(folder, "checkout", "-q", ".")
            found["tests"] = None if no_tests else timed(folder, "test")
        results.add(demo=found)


if __name__ == "__main__":
    main()
