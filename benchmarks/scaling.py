"""`python -m benchmarks.scaling`: the same chains on one process and on several, and as many times
the chains on as many processes.

Efficiency of n processes: strong = t₁/(n·tₙ) for the same chains, weak = t₁/tₙ for n times the
chains. Every process has one thread; loading is left out.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click

from benchmarks import ours, results
from benchmarks.work import WORKS, Work, save

NAME, CHAINS, STEPS = "mini-350k", 8, 60


@click.command
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--workers", type=click.IntRange(2), default=2, show_default=True)
def main(rounds: int, workers: int) -> None:
    """Measures the efficiency of several processes and adds it to results.json."""
    cases = {"one": (CHAINS, 1), "same": (CHAINS, workers), "more": (CHAINS * workers, workers)}
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    with tempfile.TemporaryDirectory() as folder:
        save(WORKS[NAME], Path(folder))
        for _ in range(rounds):
            for name, (chains, number) in cases.items():
                work = replace(WORKS[NAME], chains=chains, folder=Path(folder))
                seconds[name].append(timed(work, number))
    one, same, more = seconds.values()
    found = {
        "workers": workers,
        "work": f"{NAME}, {CHAINS} chains of {STEPS} steps, and {workers} times that",
        "strong": results.spread([a / (workers * b) for a, b in zip(one, same, strict=True)]),
        "weak": results.spread([a / b for a, b in zip(one, more, strict=True)]),
        "seconds": {name: results.spread(values) for name, values in seconds.items()},
    }
    results.add(scaling=found)


def timed(work: Work, workers: int) -> float:
    """Returns the seconds of a work's chains on so many processes."""
    ours.spread(work, 2, workers)  # loads and compiles
    start = time.perf_counter()
    ours.spread(work, STEPS, workers)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
