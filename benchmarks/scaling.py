"""`python -m benchmarks.scaling`: the same chains on one process and on several, and twice the
chains on twice the processes.

Efficiency of n processes: strong = t₁/(n·tₙ) for the same work, weak = t₁/tₙ for n times the work.
Time runs from the first step to when the last process is done; loading is left out. It is also what
`python -m benchmarks.scaling --chains C --processes N` runs, a rank of it.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import click

from benchmarks import results, rounds
from benchmarks.machine import describe
from benchmarks.ours import losses_of
from benchmarks.work import WORKS, save
from replicate.data.json_io import rounded, write_json
from replicate.pipeline import parallel as processes

HERE = Path(__file__).parent
NAME, CHAINS, STEPS = "mini-350k", 8, 60


@click.command
@click.option("--rounds", "count", type=click.IntRange(1), default=5, show_default=True)
@click.option("--chains", type=int, help="run these and print the seconds")
@click.option("--processes", "ranks", type=int, default=2, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="of the saved model")
def main(count: int, chains: int | None, ranks: int, folder: Path | None) -> None:
    """Measures the efficiency of several processes and adds it to results.json."""
    if chains is not None and folder is not None:
        rank(chains, ranks, folder)
        return
    seconds: dict[str, list[float]] = {"one": [], "same": [], "more": []}
    with tempfile.TemporaryDirectory() as place:
        save(WORKS[NAME], Path(place))
        for _ in range(count):
            for key, share, number in (
                ("one", CHAINS, 1),
                ("same", CHAINS, ranks),
                ("more", CHAINS * ranks, ranks),
            ):
                options = ("--chains", share, "--processes", number, "--folder", place)
                seconds[key].append(rounds.python("benchmarks.scaling", *options)["seconds"])
    machine = describe()
    found = {
        "processes": ranks,
        "work": f"{NAME}, {CHAINS} chains of {STEPS} steps, and {ranks} times that",
        "strong": results.spread(
            [
                one / (ranks * same)
                for one, same in zip(seconds["one"], seconds["same"], strict=True)
            ]
        ),
        "weak": results.spread(
            [one / more for one, more in zip(seconds["one"], seconds["more"], strict=True)]
        ),
        "seconds": {key: results.spread(values) for key, values in seconds.items()},
    }
    report = {"machine": asdict(machine), "works": {}, "scaling": found}
    write_json(
        HERE / "results.json",
        results.merged(results.read(HERE / "results.json"), machine.name, report),
    )
    print(json.dumps(rounded(found), indent=1, ensure_ascii=False))


def rank(chains: int, ranks: int, folder: Path) -> None:
    """One process's share; the first prints the seconds."""
    work = replace(WORKS[NAME], chains=chains, folder=folder)
    processes.start(ranks)
    with processes.world("scaling") as world:
        mine = world.share(list(range(chains)))
        losses_of(work, 2, mine)  # loads, compiles
        start = time.perf_counter()
        losses_of(work, STEPS, mine)
    if world.rank == 0:
        print(json.dumps({"seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()
