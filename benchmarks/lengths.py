"""`python -m benchmarks.lengths`: λ̂ of many short chains against that of one long chain.

All rows spend `GRADIENTS` gradients of 16 windows on one estimate, at one posterior of mini-34k
(label, nβ = 30, γ = 300), with Leimkuhler–Matthews at ε = 4e-4. They differ in the number of
chains, and in where the chains start:

    w*       each chain at w*, with a burn-in of its own, or with none
    branch   all chains where one chain is after one burn-in
    exact    each chain with a draw from N(w*, 1/γ), with no burn-in

Each row is repeated with other minibatches and noise, `ROUND` times in each round. `llc` is the
mean over the repeats with its standard error, `bias_percent` how far it is from the mean of the
rows whose chains begin at w* with a burn-in. `error_percent` is the standard error that an
estimate reports, `half_percent` half of its 95 % interval, each as a mean over the repeats; `held`
counts the intervals that hold that mean. An estimate from one chain has the halves of this chain
as its replicates.

`ratio` is the square of the error from draws and their effective number over that of one long
chain. The limit is that of independent draws, one chain's draws over the row's: where the ratio is
at the limit, a cut costs its burn-ins and no more.

Rounds are written to lengths.json as soon as a row is measured, and go on where they ended.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import torch
import xarray as xr
from scipy import stats

from benchmarks.machine import describe
from replicate.data.json_io import read_json, write_json
from replicate.estimation import estimators
from replicate.models.cpu_kernels import fast_cpu
from replicate.progress import silent
from replicate.sampling import SamplerConfig, SamplingConfig
from replicate.sampling.walkers import Walkers
from replicate.seeds import derive
from replicate.validation.coverage import TARGET, Problem

FILE = Path(__file__).with_suffix(".json")
NBETA, GAMMA, LR = 30.0, 300.0, 4e-4
GRADIENTS, BATCH, BURN_IN = 4000, 16, 40  # the burn-in is 2.4 relaxation times 2/(εγ)
ROUND, TOGETHER = 4, 16  # repeats of a row in a round; chains side by side

Start = Literal["w*", "branch", "exact"]


@dataclass(frozen=True)
class Row:
    """`chains` chains that begin at `start`; the first `burn_in` steps of each do not count."""

    chains: int
    start: Start
    burn_in: int

    @property
    def name(self) -> str:
        begin = {"w*": f"w*, burn-in {self.burn_in}", "branch": "one burn-in"}
        return f"{self.chains} × {self.draws}, from {begin.get(self.start, 'exact starts')}"

    @property
    def draws(self) -> int:
        """The draws of each chain."""
        given = GRADIENTS - (BURN_IN if self.start == "branch" else 0)
        return given // self.chains - self.burn_in

    @property
    def in_sequence(self) -> int:
        """The steps that cannot be done at the same time."""
        return self.burn_in + self.draws + (BURN_IN if self.start == "branch" else 0)


LONG = Row(1, "w*", BURN_IN)
ROWS = [  # the most important first
    LONG,
    *(Row(n, "w*", BURN_IN) for n in (8, 32)),
    *(Row(n, "exact", 0) for n in (8, 32)),
    Row(32, "w*", 0),
    *(Row(n, "branch", 0) for n in (8, 32)),
]


def traces(problem: Problem, row: Row, repeats: range) -> xr.Dataset:
    """Returns the steps of repeats of a row, (shuffle, chain, draw), a repeat as a shuffle."""
    found: list[xr.Dataset] = []
    size = max(1, TOGETHER // row.chains)
    sampler = SamplerConfig("leimkuhler", LR, localization=GAMMA, stationary=row.start == "exact")
    sampling = SamplingConfig(NBETA, BATCH, 1, 1, row.burn_in, row.draws)
    for first in range(0, len(repeats), size):
        walkers = started(problem, row, repeats[first : first + size])
        found.append(walkers.run(sampler, sampling, silent))
    return xr.concat(found, "shuffle")


def started(problem: Problem, row: Row, repeats: range) -> Walkers:
    """Returns walkers at w*, or for a branch where one chain of each repeat is."""

    def walkers(chains: int, *which: str) -> Walkers:
        return Walkers(
            problem.task,
            problem.losses_N,
            len(repeats),
            chains,
            order=lambda s: np.random.default_rng(
                derive(2023, "lengths", "order", repeats[s], *which)
            ).permutation(len(problem.losses_N)),
            noise=lambda s, c: derive(
                2023, "lengths", row.chains, row.start, repeats[s], c, *which
            ),
        )

    many = walkers(row.chains)
    if row.start == "branch":
        first = walkers(1, "burn-in")
        sampling = SamplingConfig(NBETA, BATCH, 1, 1, 0, BURN_IN)
        first.run(SamplerConfig("leimkuhler", LR, localization=GAMMA), sampling, silent)
        assert first.stack is not None
        many.restore([[w.repeat_interleave(row.chains, 0) for w in first.stack.weights]])
    return many


def measure(problem: Problem, row: Row, repeats: range) -> list[dict[str, Any]]:
    """Returns λ̂, its errors and its interval for each of some repeats."""
    begun, trace = time.monotonic(), traces(problem, row, repeats)
    loss, found = float(problem.losses_N.mean(dtype=np.float64)), []
    for s in range(len(repeats)):
        values = estimators.controlled(trace.isel(shuffle=[s]), NBETA, loss)
        each = estimators.summarise(values, halves=row.chains == 1)
        names = "llc", "standard_error", "monte_carlo_error", "interval"
        found.append({name: getattr(each, name) for name in names})
    seconds = (time.monotonic() - begun) / len(repeats)
    return [each | {"seconds": seconds} for each in found]


def summary(rows: dict[str, Any]) -> dict[str, Any]:
    """Returns what the docstring of this module describes, by the row's name."""
    burnt = [rows[r.name] for r in ROWS if r.start == "w*" and r.burn_in and r.name in rows]
    truth = float(np.mean([np.mean(_all(each, "llc")) for each in burnt]))
    long, found = np.mean(np.square(_all(rows[LONG.name], "monte_carlo_error"))), {}
    for row in ROWS:
        if row.name not in rows:
            continue
        each = rows[row.name]
        llc, (low, high) = _all(each, "llc"), np.transpose(_all(each, "interval"))
        found[row.name] = {
            "in_sequence": row.in_sequence,
            "llc": float(np.mean(llc)),
            "standard_error": float(stats.sem(llc)),
            "bias_percent": 100 * (float(np.mean(llc)) / truth - 1),
            "error_percent": 100 * float(np.mean(_all(each, "standard_error"))) / truth,
            "half_percent": 100 * float(np.mean(high - low)) / 2 / truth,
            "held": int(((low <= truth) & (truth <= high)).sum()),
            "repeats": len(llc),
            "ratio": float(np.mean(np.square(_all(each, "monte_carlo_error"))) / long),
            "limit": LONG.draws / (row.chains * row.draws),
        }
    return found


def _all(repeats: list[dict[str, Any]], name: str) -> Any:
    return np.array([each[name] for each in repeats])


def line(name: str, each: dict[str, Any]) -> str:
    return (
        f"{name}: {each['in_sequence']} steps in sequence; λ̂ {each['llc']:.3f} ±"
        f" {each['standard_error']:.3f} ({each['bias_percent']:+.1f} %), reported error"
        f" {each['error_percent']:.1f} %, interval ± {each['half_percent']:.1f} %, held by"
        f" {each['held']} of {each['repeats']}; variance {each['ratio']:.2f} × one chain's, limit"
        f" {each['limit']:.2f}"
    )


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=4, show_default=True)
@click.option("--minutes", type=float, default=60.0, help="after which no row is begun")
def main(rounds: int, minutes: float) -> None:
    """Measures the rounds that lengths.json lacks and prints all rows."""
    torch.set_num_threads(1)
    until = time.monotonic() + 60 * minutes
    found: dict[str, Any] = read_json(FILE) if FILE.exists() else {"rows": {}}
    rows: dict[str, list[Any]] = found["rows"]
    with fast_cpu():
        problem = Problem("last", 2023)
        for end in range(ROUND, ROUND * rounds + 1, ROUND):
            for row in ROWS:
                done = rows.setdefault(row.name, [])
                if len(done) >= end or time.monotonic() > until:
                    continue
                done += measure(problem, row, range(len(done), end))
                work = f"{TARGET}, label, nβ {NBETA:g}, γ {GAMMA:g}, ε {LR:g}, {BATCH} windows"
                found |= {"machine": describe().name, "work": work}
                found["summary"] = summary({k: each for k, each in rows.items() if each})
                write_json(FILE, found)
                print(line(row.name, found["summary"][row.name]), flush=True)
    print(found["machine"], found["work"], sep="; ")
    for name, each in found["summary"].items():
        print(line(name, each))


if __name__ == "__main__":
    main()
