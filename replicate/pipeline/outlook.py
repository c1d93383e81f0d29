"""Estimates how long the demo study still takes on this machine.

benchmarks/results.json has the seconds of each stage on a known machine, and of a short
computation. The same computation is timed here, and the ratio of the two times scales the seconds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from replicate import progress

Stage = tuple[str, str | None]  # the stage's name, and its study or family

SIZE, PRODUCTS, ROUNDS = 128, 200, 5  # of the short computation, about 0.2 s


def announce(benchmarks: Path, done: Collection[Stage], stage: str, argument: str | None) -> None:
    """Prints, when a stage begins, how long the demo study still takes.

    The stage's lines of progress then also show the time of the later stages. If the recorded run
    does not have the stage, nothing is printed.

    Args:
        benchmarks: the file results.json.
        done: the stages that the same command has run, in any order.
        stage: the name of the stage that begins.
        argument: the study or family of the stage.
    """
    recorded = _recorded(benchmarks)
    seconds = {(name, given): spent for name, given, spent in recorded.get("stages", [])}
    if (stage, argument) not in seconds:
        return
    factor = probe() / recorded["probe"]
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
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(PRODUCTS):
            np.tanh(np.einsum("ij,jk->ik", a, a))
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def _recorded(benchmarks: Path) -> dict[str, Any]:
    """Returns the recorded run of the demo study; an empty mapping if there is none."""
    with suppress(OSError, ValueError):
        for report in json.loads(benchmarks.read_text()).values():
            if "probe" in report.get("demo", {}):
                return report["demo"]
    return {}
