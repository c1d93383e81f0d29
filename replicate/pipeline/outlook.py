"""Estimates how long the demo study still takes on this machine.

benchmarks/results.json has the seconds of each stage on a known machine, and of a short
computation. The same computation is timed here, and the ratio of the two times scales the seconds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from replicate import progress

Stage = tuple[str, str | None]  # the stage's name, and its study or family

FRESH = 3600  # seconds for which a measured speed is reused
SIZE, PRODUCTS, ROUNDS = 128, 200, 5  # of the short computation, about 0.2 s


def announce(
    benchmarks: Path, noted: Path, done: Collection[Stage], stage: str, argument: str | None
) -> None:
    """Prints, when a stage begins, how long the demo study still takes.

    The stage's lines of progress then also show the time of the later stages. If the recorded run
    does not have the stage, nothing is printed.

    Args:
        benchmarks: the file results.json.
        noted: the file that stores the speed of this machine for later stages.
        done: the stages that the same command has run, in any order.
        stage: the name of the stage that begins.
        argument: the study or family of the stage.
    """
    recorded = _recorded(benchmarks)
    seconds = {(name, given): spent for name, given, spent in recorded.get("stages", [])}
    if (stage, argument) not in seconds:
        return
    factor = _speed(noted) / recorded["probe"]
    left = {key: spent * factor for key, spent in seconds.items() if key not in done}
    total = sum(left.values())
    progress.after = total - left.get((stage, argument), 0.0)
    place = len(seconds) - len(left) + 1
    print(f"demo: stage {place} of {len(seconds)}, about {minutes(total)} left here", flush=True)


def minutes(seconds: float) -> str:
    """Returns a time in whole minutes, or in seconds below 100."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def probe() -> float:
    """Returns the seconds of a short computation: products of small matrices, in one thread."""
    a = np.linspace(-1, 1, SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)

    def once() -> float:
        start = time.perf_counter()
        for _ in range(PRODUCTS):
            np.tanh(np.einsum("ij,jk->ik", a, a))
        return time.perf_counter() - start

    return median(once() for _ in range(ROUNDS))


def _speed(noted: Path) -> float:
    try:
        if time.time() - noted.stat().st_mtime < FRESH:
            return float(noted.read_text())
    except (OSError, ValueError):
        pass
    seconds = probe()
    noted.parent.mkdir(parents=True, exist_ok=True)
    noted.write_text(f"{seconds:.6f}")
    return seconds


def _recorded(benchmarks: Path) -> dict[str, Any]:
    try:
        reports: Iterable[dict[str, Any]] = json.loads(benchmarks.read_text()).values()
    except (OSError, ValueError):
        return {}
    return next((r["demo"] for r in reports if "probe" in r.get("demo", {})), {})
