"""`python -m benchmarks`: ours and the peers on the same work, on this machine."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks import figure, results, rounds
from benchmarks.machine import describe
from benchmarks.peers import NAMES
from benchmarks.table import table
from benchmarks.work import WORKS
from replicate.data.json_io import rounded, write_json
from replicate.reporting.figures.style import save

BUSY = 0.5  # load from which timings are not to be trusted


class Listed(click.ParamType):
    """Names with commas between them."""

    name = "names"

    def __init__(self, known: Collection[str]) -> None:
        self.known = known

    def convert(self, value: Any, param: Any, ctx: Any) -> list[str]:
        names = [name for name in value.split(",") if name]
        for name in names:
            if name not in self.known:
                self.fail(f"no {name!r}; there are {', '.join(self.known)}", param, ctx)
        return names


def option(*names: str, **how: Any) -> Any:
    return click.option(*names, show_default=True, **how)


def said(name: str, work: dict[str, Any] | None, title: str) -> str:
    """Returns a line on the last measurement of a work."""
    found = (work or {}).get("measured", {}).get(name, {"lack": "no result of ours"})
    if "raw_seconds" not in found:
        return f"{title}, {name}: {found['lack']}"
    ratio = "" if name == "ours" else f", {found['ratio']['median']:.2f} × ours"
    share = f"{found['fraction_of_limit']:.2f} of the limit"
    return f"{title}, {name}: {found['raw_seconds'][-1]:.4g} s a step of a chain{ratio}, {share}"


@click.command()
@option("--rounds", "count", type=click.IntRange(1), default=5, help="at most, interleaved")
@option("--minutes", type=float, default=10.0, help="after which nothing more is measured")
@option("--works", "names", type=Listed(WORKS), default=",".join(WORKS))
@option("--peers", type=Listed(NAMES), default=",".join(NAMES))
@option("--logits", type=click.Choice(["all", "last"]), default="all", help="that peers compute")
@option("--steps", type=(int, int), help="lengths of chain, other than the works' own")
@option("--out", type=click.Path(path_type=Path), default=results.FILE.parent, help="folder")
@option("--json", "as_json", is_flag=True, help="print JSON instead of a table")
def main(
    count: int,
    minutes: float,
    names: list[str],
    peers: list[str],
    logits: str,
    steps: tuple[int, int] | None,
    out: Path,
    as_json: bool,
) -> None:
    """Times ours and the peers; prints each measurement and writes it to results.json at once; ends
    with a table and the figure steps.pdf.

    What results.json has of other works and machines stays there.
    """
    until = time.monotonic() + 60 * minutes
    works = [replace(WORKS[n], logits=logits, steps=steps or WORKS[n].steps) for n in names]
    lacking = [work.name for work in works if work.cuda and not torch.cuda.is_available()]
    lacks = dict.fromkeys(lacking, "needs a CUDA GPU")
    here = [work for work in works if work.name not in lacks]
    if (load := os.getloadavg()[0]) > BUSY:
        print(f"this machine does other work (load {load:.1f}): timings are off", file=sys.stderr)
    rates = rounds.rates(sorted({work.compute_dtype for work in here}))
    machine = describe()
    reports = results.read(out / "results.json")
    print(f"{machine.name}; the limit is that of {rates}")
    for work, name, timings in rounds.measure(here, peers, count, until):
        done = [each for each in works if each.name in lacks or timings[each.name]["ours"].rounds]
        new = results.report(machine, rates, done, lacks, timings)
        reports = results.merged(reports, machine.name, new)
        write_json(out / "results.json", reports)
        print(said(name, new["works"].get(work.name), work.name), flush=True)
    save(figure.steps(reports), out / "steps")
    if as_json:
        print(json.dumps(rounded(reports), indent=1, sort_keys=True, ensure_ascii=False))
    else:
        print(table(reports))


if __name__ == "__main__":
    main()
