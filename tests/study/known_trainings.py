"""Studies of several trainings whose truth is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from replicate.study.claims.evidence import Evidence
from replicate.study.records import JudgedClaim, Setting
from tests.study.known_truth import BY_ID, RULES
from tests.study.small_results import make

Law = Callable[[float], float]  # d → ln λ̂; a mapping has one for each (nβ, γ)
Draw = Callable[[np.random.Generator], Evidence]

SIZES = {"34k": 34_080, "110k": 109_720, "350k": 347_360, "1050k": 1_050_000}
TRAININGS = (5, 5, 5, 3)
COARSE, PRACTICE, FINER = (1910.0, 300.0), (30.0, 300.0), (19100.0, 3000.0)
RADIUS = (1910.0, None)  # γ ∝ d
FIXED = (COARSE, PRACTICE, FINER)
SETTINGS = (*FIXED, RADIUS)
SIGMA, ERROR = 0.05, 0.01  # of ln λ̂: between trainings, and of the draws
JUDGED = replace(RULES, bootstrap=400)


def judged(claim: str, evidence: Evidence) -> JudgedClaim:
    return BY_ID[claim].record(evidence, JUDGED)


def tally(claim: str, draw: Draw, repeats: int = 300) -> Counter[str]:
    generator = np.random.default_rng(int.from_bytes(claim.encode(), "big"))
    return Counter(judged(claim, draw(generator)).verdict for _ in range(repeats))


def row(size: str = "34k", training: int = 1, log_llc: float = 3.0, **changes: Any) -> Setting:
    """λ̂ of one training."""
    llc = float(np.exp(log_llc))
    error = changes.pop("error", ERROR)
    values: dict[str, Any] = {
        "family": "sizes",
        "model": f"{size}-{training}",
        "size": size,
        "training": training,
    }
    values |= {"parameters": SIZES[size], "loss": "tokens", "text": "corpus", "lr": 1e-5}
    values |= {"nbeta": COARSE[0], "localization": COARSE[1], "regime": "crossover"}
    values |= {"llc": llc, "standard_error": error * llc, "interval": (0.9 * llc, 1.1 * llc)}
    return make(Setting, **(values | {"gradients": 1000, "gradient_part": (0.0, 0.0)} | changes))


def trainings(
    generator: np.random.Generator,
    laws: Mapping[Any, Law],
    counts: Sequence[int] = TRAININGS,
    sigma: float = SIGMA,
    **changes: Any,
) -> list[Setting]:
    """Trainings of each size at some settings. What a training adds to ln λ̂ is the same at all."""
    rows = []
    for (size, d), count in zip(SIZES.items(), counts, strict=False):
        for training in range(1, count + 1):
            shift = sigma * generator.normal()
            for (nbeta, gamma), law in laws.items():
                value = law(d) + shift + ERROR * generator.normal()
                given = 300.0 * d / SIZES["34k"] if gamma is None else gamma
                if (size, gamma) == ("34k", None) and (nbeta, given) in laws:
                    continue  # the smallest size has this radius at the fixed γ
                at: dict[str, Any] = {"nbeta": nbeta, "localization": given}
                rows.append(row(size, training, value, **(at | changes)))
    return rows


def power(a: float, shift: float = 3.0) -> Law:
    return lambda d: shift + a * float(np.log(d / SIZES["34k"]))


def bent(curvature: float) -> Law:
    """ln λ̂ whose second difference over a doubling is `curvature`."""
    return lambda d: 3 + curvature / 2 * float(np.log2(d / SIZES["34k"])) ** 2


def sizes(law: Law, counts: Sequence[int] = TRAININGS, **changes: Any) -> Draw:
    """All sizes at the setting where they are compared."""
    return lambda generator: evidence(trainings(generator, {COARSE: law}, counts, **changes))


def orders(*exponents: float, counts: Sequence[int] = TRAININGS, sigma: float = SIGMA) -> Draw:
    """One exponent for each of `SETTINGS`; those without an exponent were not run."""
    laws = {at: power(a) for at, a in zip(SETTINGS, exponents, strict=False)}
    return lambda generator: evidence(trainings(generator, laws, counts, sigma))


def evidence(rows: Sequence[Setting]) -> Evidence:
    return Evidence(settings=rows, full_name="sizes", quantised_name="sizes-llama")


def llama(law: Law, own: Law, counts: Sequence[int] = (3, 3), sigma: float = SIGMA) -> Draw:
    """Four sizes by `law`, and a second family by `own`."""

    def draw(generator: np.random.Generator) -> Evidence:
        rows = trainings(generator, {COARSE: law}, sigma=sigma)
        other = trainings(generator, {COARSE: own}, counts, sigma=sigma)
        renamed = [
            each.model_copy(update={"family": "sizes-llama", "model": f"llama-{each.model}"})
            for each in other
        ]
        return evidence([*rows, *renamed])

    return draw


def curved(*ratios: float, degree: float = 2.0, error: float = 0.01) -> Draw:
    """Sizes whose λ̂ is so many times ½·nβ·tr(H)/γ; E[V]/λ̂ is `degree` on average."""

    def draw(generator: np.random.Generator) -> Evidence:
        rows = []
        for size, ratio in zip(SIZES, ratios, strict=False):
            for training in range(1, 6):
                noise = error * generator.normal(size=2)
                llc = float(np.exp(3 + np.log(ratio) + noise[0]))
                trace = 2 * COARSE[1] * float(np.exp(3)) / COARSE[0]
                found: dict[str, Any] = {
                    "trace": (trace, 0.0),
                    "degree": (degree + 2 * noise[1], 0.02),
                }
                rows.append(row(size, training, float(np.log(llc)), regime="curvature", **found))
        return evidence(rows)

    return draw


def rescaled(delta: float, error: float, models: int = 6, **changes: Any) -> Draw:
    """Models whose ln λ̂ changes by about `delta` if they are rescaled."""

    def draw(generator: np.random.Generator) -> Evidence:
        rows = []
        for k in range(models):
            size, value = list(SIZES)[k % 2], 3 + SIGMA * generator.normal()
            after = value + delta + error * generator.normal()
            rows.append(row(size, k + 1, value))
            rows.append(row(size, k + 1, after, rescaled="gain", **changes))
        return evidence(rows)

    return draw


def beyond(slope: float, sigma: float = SIGMA) -> Draw:
    """D has this slope on ln d; the gradient takes 1 off λ̂ at both settings."""

    def draw(generator: np.random.Generator) -> Evidence:
        laws = {COARSE: power(0.3 + slope), FINER: power(0.3, 2.0)}
        rows = trainings(generator, laws, sigma=sigma)
        taken = [
            each.model_copy(update={"llc": (each.llc or 0.0) - 1, "gradient_part": (-1.0, 0.01)})
            for each in rows
        ]
        return evidence(taken)

    return draw


def apart(gap: float, pairs: int = 1, sigma: float = SIGMA, count: int = 5) -> Draw:
    """Neighbouring sizes whose ln λ̂ differ by `gap`."""
    known = list(SIZES.values())
    return sizes(lambda d: 3 + gap * known.index(int(d)), (count,) * (pairs + 1), sigma=sigma)
