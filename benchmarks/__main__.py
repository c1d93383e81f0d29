"""`python -m benchmarks`: ours and the peers on the same work, on this machine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import click
import torch

from benchmarks import figure, results, rounds
from benchmarks.machine import describe
from benchmarks.peers import NAMES
from benchmarks.table import table
from benchmarks.work import WORKS
from replicate.data.json_io import rounded, write_json
from replicate.progress import progress
from replicate.reporting.figures.save import save

HERE = Path(__file__).parent
BUSY = 0.5  # load from which timings are not to be trusted


@click.command
@click.option(
    "--rounds",
    "count",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="measurements of each, interleaved",
)
@click.option(
    "--works", "chosen", default=",".join(WORKS), show_default=True, help="by name, with commas"
)
@click.option("--peers", default=",".join(NAMES), show_default=True, help="by name, with commas")
@click.option(
    "--logits",
    type=click.Choice(["all", "last"]),
    default="all",
    show_default=True,
    help="those that the peers' loss makes",
)
@click.option(
    "--steps",
    type=(int, int),
    help="the two lengths of chain that are timed, other than the works' own",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=HERE,
    help="folder for results.json and the figure; benchmarks/",
)
@click.option(
    "--json", "as_json", is_flag=True, help="print the results as JSON instead of a table"
)
def main(
    count: int,
    chosen: str,
    peers: str,
    logits: str,
    steps: tuple[int, int] | None,
    out: Path,
    as_json: bool,
) -> None:
    """Times ours and the peers; prints a table, writes results.json and the figure steps.pdf.

    What results.json has of other works and machines stays there.
    """
    names = listed(chosen, WORKS, "--works")
    works = [
        replace(WORKS[name], logits=logits, steps=steps or WORKS[name].steps) for name in names
    ]
    selected = listed(peers, NAMES, "--peers")
    lacks = {
        work.name: "needs a CUDA GPU"
        for work in works
        if work.cuda and not torch.cuda.is_available()
    }
    here = [work for work in works if work.name not in lacks]
    if os.getloadavg()[0] > BUSY:
        print(
            f"this machine has other work (load {os.getloadavg()[0]:.1f}): timings will be off, or by a multiple",
            file=sys.stderr,
        )
    dtypes = sorted({work.products for work in works})
    with progress(
        "benchmarks",
        count * (len(dtypes) + sum(len(rounds.compared(work, selected)) for work in here)),
    ) as advance:
        rates = rounds.rates(dtypes, count, advance)
        timings = rounds.measure(here, selected, count, advance)
    machine = describe()
    new = results.report(machine, rates, works, lacks, timings)
    reports = results.merged(results.read(out / "results.json"), machine.name, new)
    write_json(out / "results.json", reports)
    save(figure.steps(reports), out / "steps")
    if as_json:
        print(json.dumps(rounded(reports), indent=1, sort_keys=True, ensure_ascii=False))
    else:
        print(table(reports))


def listed(text: str, known: Collection[str], option: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    if unknown := [name for name in names if name not in known]:
        raise click.BadParameter(
            f"no {unknown[0]!r}; there are {', '.join(known)}", param_hint=option
        )
    return names


if __name__ == "__main__":
    main()
