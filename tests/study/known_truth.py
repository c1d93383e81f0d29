"""Studies whose truth is known: what each claim's verdict must be on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import stats

from replicate.pipeline.config import load
from replicate.study.claims import CLAIMS
from replicate.study.claims.evidence import Evidence, Family
from replicate.study.published import ORIGINAL
from replicate.study.records import (
    Baseline,
    Estimate,
    Importance,
    JudgedClaim,
    Quantised,
    Transferred,
    Trial,
)
from tests.conftest import ROOT
from tests.study.small_results import make

Draw = Callable[[np.random.Generator], Evidence]

RULES = replace(load(ROOT / "params.yaml").rules, bootstrap=100, seed=1)
SIZES = np.array([124e6, 355e6, 774e6, 1558e6])
DOUBLINGS = np.log2(SIZES / SIZES[0])
REPEATS = 300
WRONG = int(stats.binom.ppf(0.9999, REPEATS, RULES.level))  # more wrong verdicts break the level
STILL: list[float | None] = [0.01, -0.02, 0.0, 0.01]
BY_ID = {claim.id: claim for claim in CLAIMS}


def judged(claim: str, evidence: Evidence) -> JudgedClaim:
    return BY_ID[claim].record(evidence, RULES)


def verdict(claim: str, evidence: Evidence) -> str:
    return judged(claim, evidence).verdict


def tally(claim: str, draw: Draw, repeats: int = REPEATS) -> Counter[str]:
    """Verdicts over independent repeats of a study."""
    generator = np.random.default_rng(int.from_bytes(claim.encode(), "big"))
    return Counter(verdict(claim, draw(generator)) for _ in range(repeats))


def family(llc_SxM: np.ndarray, *, estimator: str = "controlled", **changes: Any) -> Family:
    M = llc_SxM.shape[1]
    values = {"name": "f", "models": tuple(f"m{i}" for i in range(M)), "tokenizer": "t"}
    values |= {"parameters_M": SIZES[:M], "sampled_M": SIZES[:M]}
    values |= {"nbeta": 30.0, "localization": 100.0, "estimates": {estimator: llc_SxM}}
    return Family(**(values | changes))


def both(values: np.ndarray) -> Evidence:
    return Evidence(full=family(values), quantised=family(values))


def shuffles(trend_M: Iterable[float], S: int = 4) -> Draw:
    """λ̂ of `trend_M` with a standard deviation of 10, and a shift of each shuffle that all its
    models share, as a common minibatch would give.
    """
    mean_M = np.array(list(trend_M))

    def draw(generator: np.random.Generator) -> Evidence:
        noise_SxM = 10 * generator.normal(size=(S, len(mean_M)))
        return both(mean_M + noise_SxM + 1000 * generator.normal(size=(S, 1)))

    return draw


def baselines(*falls: float, error: float) -> dict[str, Baseline]:
    """Models whose held-out loss falls by so much along minus the gradient."""
    return {
        f"m{i}": make(Baseline, descent=fall, descent_error=error) for i, fall in enumerate(falls)
    }


def falling(fall: float, error: float = 0.002, level: float = 50.0) -> Draw:
    """The held-out loss of two models falls by `fall`, and λ̂ is about `level`."""

    def draw(generator: np.random.Generator) -> Evidence:
        values = level + generator.normal(size=(4, 2))
        falls = fall + error * generator.normal(size=2)
        return Evidence(full=family(values), baselines=baselines(*falls, error=error))

    return draw


def trial(**changes: Any) -> Trial:
    return make(Trial, **({"sampler": "sgld", "healthy": True} | changes))


def search(sgld: np.ndarray, sgnht: np.ndarray) -> Evidence:
    """Settings of the two samplers with these stabilities; NaN where a chain diverged."""
    rows = [("sgld", value) for value in sgld] + [("sgnht", value) for value in sgnht]
    return Evidence(
        trials=[
            trial(sampler=sampler, mean=float(i), stability=None if np.isnan(value) else value)
            for i, (sampler, value) in enumerate(rows)
        ]
    )


def grids(shift: float) -> Draw:
    return lambda generator: search(
        5 + shift + generator.normal(size=27), 5 + generator.normal(size=9)
    )


def importances(lr: float, other: float, error: float = 0.05) -> Draw:
    def draw(generator: np.random.Generator) -> Evidence:
        rows = []
        for name, truth in (("lr", lr), ("localization", other), ("weight_decay", 0.0)):
            value = truth + error * generator.normal()
            resamples = (value + error * generator.normal(size=200)).tolist()
            named = {"sampler": "sgld", "hyperparameter": name, "importance": value}
            rows.append(make(Importance, **named, resamples=resamples))
        return Evidence(importances=rows)

    return draw


def diffusions(llc_BxA: np.ndarray, **changes: Any) -> Evidence:
    """SGNHT's λ̂ in some settings (block) along diffusion factors."""
    return Evidence(
        trials=[
            trial(sampler="sgnht", lr=1.0 + block, diffusion=1.0 + a, mean=llc, **changes)
            for block, llc_A in enumerate(llc_BxA.tolist())
            for a, llc in enumerate(llc_A)
        ]
    )


def blocks(slope: float) -> Draw:
    return lambda generator: diffusions(generator.normal(size=(4, 3)) + slope * np.arange(3))


def clippings(**changes: Iterable[float | None]) -> Evidence:
    """Models whose λ̂ of each shuffle changes by so much if chains are clipped."""
    rows = {model: make(Estimate, clipped=list(changes_S)) for model, changes_S in changes.items()}
    return Evidence(estimates=rows)


def clipped(truth: float, error: float) -> Draw:
    return lambda generator: clippings(m=truth + error * generator.normal(size=4))


def varying(cv: float, S: int = 8) -> Draw:
    return lambda generator: Evidence(
        full=family(100 * (1 + cv * generator.normal(size=(S, 1))), estimator=ORIGINAL)
    )


def transferred(factor: float, llc_S: Iterable[float | None], **changes: Any) -> Transferred:
    values = {"family": "f", "model": "m", "rhat": 1.01, "drift_p": 0.5, "chains": 4}
    return make(Transferred, factor=factor, shuffles=list(llc_S), **(values | changes))


def transfers(change: float, error: float, **chosen: Any) -> Draw:
    """λ̂ at a third of the chosen step size differs by `change` from that at the chosen one."""

    def draw(generator: np.random.Generator) -> Evidence:
        one = 50 + 20 * generator.random(4)  # shuffles differ: only pairs agree
        third = one * (1 + change + error * generator.normal(size=4))
        rows = [transferred(0.333, third), transferred(1.0, one, **chosen)]
        return Evidence(transfer=[*rows, transferred(3.0, 9 * one)])

    return draw


def power_law(factor: float, error: float) -> Draw:
    """A quantised model at `factor` times the power law of eight models."""

    def of(generator: np.random.Generator, sizes: np.ndarray, factor: float) -> Family:
        M = len(sizes)
        mean = factor * sizes**0.4 * np.exp(error * generator.normal(size=M))
        values = mean * (1 + 1e-3 * generator.normal(size=(4, M)))
        models = tuple(map(str, range(M)))
        return family(values, models=models, parameters_M=sizes, sampled_M=sizes)

    return lambda generator: Evidence(
        full=of(generator, np.geomspace(1e4, 1e6, 8), 1.0),
        quantised=of(generator, np.array([1e5]), factor),
    )


def formats(
    rise: float,
    error: float,
    changes: Sequence[float | None],
    weights: str = "nf4",
    moved: str = "restricted",
) -> list[Quantised]:
    """A model in float32 and in another format."""
    common = {"family": "f", "model": "m", "moved": moved, "descent": 1e-3}
    pairs = (("float32", 0.0, 0.0, [0.0] * len(changes)), (weights, rise, error, list(changes)))
    return [
        make(Quantised, **common, weights=w, rise=r, rise_error=e, changes=c)
        for w, r, e, c in pairs
    ]
