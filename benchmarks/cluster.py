"""`python -m benchmarks.cluster`: what the scheduler costs when workers are many.

The workers compute nothing. Each unit sleeps as long as a chain of gpt2 in the paper study takes on
an H200, `STEPS` steps (`plan` in results.json), then writes its file, as a chain does. So the
cluster is real (a scheduler, processes, units that are pickled, checked and written), and many
workers fit on one machine: each of `PROCESSES` processes has an equal share of them as threads.

Every worker gets `EACH` units (weak scaling). With W workers, n units of t seconds and T seconds in
all, the efficiency is (n/W)·t/T, and the overhead a unit is (T − (n/W)·t)/n. All processes, and
whatever else the machine does, share its cores, so that this is an upper bound. `cpu` is the
processor time a unit of the scheduler and its client, with what they take while they wait, which
counts where units are few. Units pass through them one after the other, so that the limit is as
many workers as `cpu` fits into one unit.

Each measurement is added to cluster.json as soon as it is made.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

from benchmarks import results
from benchmarks.machine import describe
from replicate.data.json_io import read_json, write_json
from replicate.pipeline import parallel, processes
from replicate.pipeline.work.units import CachedUnit
from replicate.progress import Advance, silent

FILE = Path(__file__).with_suffix(".json")
CARD, MODEL = "NVIDIA H200", "gpt2"
STEPS, EACH, PROCESSES = 400, 2, 8


@dataclass(frozen=True)
class SleepingUnit(CachedUnit):
    """A unit that sleeps as long as a chain of `steps` steps takes."""

    number: int
    pause: float

    @property
    def name(self) -> str:
        return f"sleep {self.number}"

    @property
    def steps(self) -> int:
        return STEPS

    def settings(self) -> dict[str, Any]:
        return {"number": self.number}

    def run(self, advance: Advance) -> None:
        time.sleep(self.pause)
        self.write({"loss": np.zeros(STEPS)})


def cluster(workers: int) -> Any:
    """Starts a cluster of processes that have so many threads in all."""
    from distributed import Nanny, Scheduler, SpecCluster

    count = min(PROCESSES, workers)
    threads = {"nthreads": workers // count}
    specs = {i: {"cls": Nanny, "options": parallel.nanny(i, 1) | threads} for i in range(count)}
    options = {"dashboard": False, "host": "127.0.0.1"}
    return SpecCluster(specs, {"cls": Scheduler, "options": options}, silence_logs=False)


def measure(workers: int, pause: float) -> tuple[float, float]:
    """Returns the seconds of `EACH` units for each worker, and those of this process's processor,
    in which the scheduler and the client run.
    """
    from distributed import Client

    from benchmarks.cluster import SleepingUnit  # by this name the workers know it

    with (
        tempfile.TemporaryDirectory() as folder,
        cluster(workers) as started,
        Client(started, set_as_default=False) as client,
    ):
        client.wait_for_workers(min(PROCESSES, workers))
        first, units = (
            [SleepingUnit(Path(folder) / name, "estimate", i, seconds) for i in range(count)]
            for name, seconds, count in (("first", 0.0, workers), ("all", pause, EACH * workers))
        )
        client.run(parallel.code_hash, "estimate")  # once in each process, and not in its threads
        parallel.run_spread(client, first, silent)  # connects and imports
        begun = time.perf_counter(), time.process_time()
        parallel.run_spread(client, units, silent)
        return time.perf_counter() - begun[0], time.process_time() - begun[1]


def summary(workers: int, pause: float, rounds: list[tuple[float, float]]) -> dict[str, Any]:
    """Returns the efficiency, and the overhead a unit, from the rounds' seconds."""
    units, ideal = EACH * workers, EACH * pause
    seconds, cpu = zip(*rounds, strict=True)
    return {
        "workers": workers,
        "units": units,
        "unit_seconds": pause,
        "seconds": seconds,
        "efficiency": results.spread([ideal / each for each in seconds]),
        "overhead": max(median(seconds) - ideal, 0.0) / units,
        "cpu": results.spread([each / units for each in cpu]),
    }


def line(found: dict[str, Any]) -> str:
    share, cpu = found["efficiency"]["median"], found["cpu"]["median"]
    return (
        f"{found['workers']} workers, {found['units']} units of {found['unit_seconds']:.3g} s:"
        f" efficiency {share:.1%}; {1000 * found['overhead']:.1f} ms a unit, of which the scheduler"
        f" and its client compute {1000 * cpu:.1f} ms; their limit is"
        f" {found['unit_seconds'] / cpu:,.0f} workers"
    )


@click.command()
@click.option("--workers", multiple=True, type=click.IntRange(1), default=(1, 8, 64))
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
def main(workers: tuple[int, ...], rounds: int) -> None:
    """Measures the efficiency of many workers, interleaved, and writes it to cluster.json."""
    processes.import_dask()
    processes.silence_dask()
    parallel.prepare_forks()
    step = results.read(results.FILE)[CARD]["plan"][MODEL]["seconds"]
    machine, seconds = describe(), {count: [] for count in workers}
    print(f"{machine.name}; {MODEL}, {step:.3g} s a step on an {CARD}", flush=True)
    for _ in range(rounds):
        for count in workers:
            seconds[count].append(measure(count, STEPS * step))
            found = read_json(FILE) if FILE.exists() else {}
            rows = found.get("rows", {})
            rows[str(count)] = summary(count, STEPS * step, seconds[count])
            found = {"machine": asdict(machine), "work": f"{MODEL} on {CARD}", "rows": rows}
            write_json(FILE, found)
            print(line(rows[str(count)]), flush=True)


if __name__ == "__main__":
    main()
