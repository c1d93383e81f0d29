"""Measures all that are compared in turn, round by round, so that a slow minute of the machine
affects all alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.limit import Rates
from benchmarks.measure import Measurement
from benchmarks.peers import version
from benchmarks.work import Work, save
from replicate.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Runs:
    """The measurements of ours or of a peer on one work, or why there are none."""

    rounds: list[Measurement] = field(default_factory=list)
    lack: str | None = None


Timings = dict[str, dict[str, Runs]]  # by work, by peer, ours with it


def measure(
    works: Sequence[Work], peers: Sequence[str], rounds: int, until: float
) -> Iterator[tuple[Work, str, Timings]]:
    """Measures every work by ours and by its peers, `rounds` times or until the time is over.

    A peer that is not installed or fails is not tried again.

    Args:
        until: the time (of `time.monotonic`) after which nothing is begun.

    Yields:
        After each measurement the work, who was measured, and all measurements so far.
    """
    timings: Timings = {
        work.name: {name: Runs() for name in compared(work, peers)} for work in works
    }
    with tempfile.TemporaryDirectory() as folder:
        for work in works:
            save(work, Path(folder) / work.name)
        for _ in range(rounds):
            for work in works:
                for name, runs in timings[work.name].items():
                    if runs.lack is None and time.monotonic() < until:
                        attempt(name, work, Path(folder) / work.name, runs)
                        yield work, name, timings


def compared(work: Work, peers: Sequence[str]) -> list[str]:
    return ["ours", *(name for name in work.peers if name in peers)]


def attempt(name: str, work: Work, folder: Path, runs: Runs) -> None:
    if name != "ours" and version(name) is None:
        runs.lack = "not installed"
        return
    options = ("--folder", folder, "--steps", *work.steps, "--logits", work.logits)
    try:
        runs.rounds.append(Measurement(**python("benchmarks.measure", name, work.name, *options)))
    except UserError as error:
        runs.lack = str(error)


def rates(dtypes: Sequence[str], rounds: int = 2) -> dict[str, Rates]:
    """Returns the best rates that the machine showed, by dtype."""
    best: dict[str, Rates] = {}
    for dtype in dtypes:
        shown = [Rates(**python("benchmarks.limit", dtype)) for _ in range(rounds)]
        best[dtype] = Rates(max(rate.matrix for rate in shown), max(rate.memory for rate in shown))
    return best


def python(module: str, *arguments: object) -> dict[str, Any]:
    """Runs a module in a fresh process and returns the JSON that it prints last.

    Raises:
        UserError: it failed; the message is the last line of its complaint.
    """
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", module, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode < 0:
        raise UserError(
            f"killed by signal {-run.returncode}" + ", for want of memory" * (run.returncode == -9)
        )
    if run.returncode:
        raise UserError((run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1])
    return json.loads(run.stdout.strip().splitlines()[-1])
