"""One measurement, in a process of its own: `python -m benchmarks.measure NAME WORK --folder
FOLDER` prints one line of JSON.

After a warm-up of a few steps, which loads and compiles, the work is timed with n₁ and with n₂
steps of each chain. What a call costs whatever its length, such as a peer's pass over all the data,
drops out of

    seconds per step of a chain = (t₂ − t₁) / ((n₂ − n₁)·chains)

and is reported as `fixed` = t₁ − n₁·chains·(seconds per step). `peak` is the memory of the process
after the model was loaded, with libraries and model; `above` is its excess over what the process
had when everything was imported. On a GPU both are what torch allocated there.
"""

from __future__ import annotations

import json
import resource
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.peers import Adapter, adapter
from benchmarks.work import WORKS, Work, device


@dataclass(frozen=True)
class Measurement:
    """`seconds`: of a step of one chain; `fixed`: of a call; `peak`, `above`: bytes."""

    seconds: float
    fixed: float
    peak: int
    above: int


def measure(name: str, work: Work, warm_up: int) -> Measurement:
    """Imports the adapter, loads the model, warms up, and times.

    On a machine that does other work the longer chains may take less time than the shorter ones; a
    negative result is returned as it is.

    Raises:
        ArithmeticError: a loss is not finite.
    """
    runner = adapter(name)
    imported = peak_memory()
    runner.model(work)
    forget_peak()
    timed(runner, work, warm_up)
    (n1, n2), times = work.steps, [timed(runner, work, steps) for steps in work.steps]
    seconds = (times[1] - times[0]) / ((n2 - n1) * work.chains)
    return Measurement(
        seconds, times[0] - n1 * work.chains * seconds, peak_memory(), peak_memory() - imported
    )


def timed(runner: Adapter, work: Work, steps: int) -> float:
    """Returns the seconds of a call."""
    synchronise()
    start = time.perf_counter()
    losses = runner.run(work, steps)
    synchronise()
    seconds = time.perf_counter() - start
    if np.shape(losses) != (work.chains, steps) or not np.isfinite(losses).all():
        raise ArithmeticError(f"not {work.chains} finite chains of {steps} steps")
    return seconds


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory() -> int:
    """Returns the most bytes that this process and those that it started have had."""
    if device().type == "cuda":
        return torch.cuda.max_memory_allocated()
    if Path(
        "/proc/self/status"
    ).is_file():  # `ru_maxrss` would begin with what the parent process had
        mine = Path("/proc/self")
        children = [
            pid for task in mine.glob("task/*/children") for pid in task.read_text().split()
        ]
        lines = [
            line
            for place in (mine, *(Path("/proc") / pid for pid in children))
            for line in (place / "status").read_text().splitlines()
        ]
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def forget_peak() -> None:
    """Starts to count the peak again, where the system can, so that loading does not count."""
    if device().type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif (peak := Path("/proc/self/clear_refs")).exists():
        peak.write_text("5")


@click.command
@click.argument("name")
@click.argument("work", type=click.Choice(list(WORKS)))
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="where the model was saved",
)
@click.option("--steps", type=(int, int), help="n₁ and n₂ other than the work's")
@click.option("--warm-up", default=3, help="steps")
@click.option(
    "--logits",
    type=click.Choice(["all", "last"]),
    default="all",
    help="those that the peers' loss makes",
)
def main(
    name: str, work: str, folder: Path, steps: tuple[int, int] | None, warm_up: int, logits: str
) -> None:
    """Measures NAME (ours, or a peer) on WORK."""
    chosen = WORKS[work]
    chosen = replace(chosen, folder=folder, steps=steps or chosen.steps, logits=logits)
    print(json.dumps(asdict(measure(name, chosen, warm_up))))


if __name__ == "__main__":
    main()
