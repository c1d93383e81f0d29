"""Turns effects into verdicts, and verdicts into sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf, nan

import numpy as np

from replicate.estimation import statistics
from replicate.estimation.statistics import Effect, Interval
from replicate.study.claims.base import Finding, inconclusive, part
from replicate.study.claims.evidence import Array, Family
from replicate.study.records.verdicts import Part, Verdict
from replicate.study.rules import Rules


def directed(
    name: str, effect: Effect, level: float, null: float = 0.0, below: bool = False
) -> Part:
    """Judges the claim that an effect is above `null`. Either verdict needs both the one-sided test
    and the interval.

    Args:
        name: the name of the part.
        effect: the effect, its interval and its one-sided p values.
        level: the significance level of the tests.
        null: the value that the effect is compared with.
        below: whether the claim is that the effect is below `null`.
    """
    low, high = effect.interval or (-inf, inf)
    rises = effect.above is not None and effect.above < level and low > null
    falls = effect.below is not None and effect.below < level and high < null
    verdict: Verdict = "inconclusive"
    if rises or falls:
        verdict = "supported" if falls == below else "not supported"
    p = effect.below if below else effect.above
    return part(name, verdict, effect.value, effect.interval, p)


def equivalent(interval: Interval | None, margin: float) -> Verdict:
    """Judges the claim that there is no effect. It is supported if the interval lies within
    ± `margin`, and not supported if the interval lies wholly outside.
    """
    low, high = interval or (-inf, inf)
    if -margin <= low and high <= margin:
        return "supported"
    return "not supported" if low > margin or high < -margin else "inconclusive"


def together(verdicts: Sequence[Verdict | None]) -> Verdict:
    """Judges a claim about every model. It is supported if it holds for all of them, and not
    supported if it fails for one.
    """
    if "not supported" in verdicts:
        return "not supported"
    return "supported" if set(verdicts) == {"supported"} else "inconclusive"


def deciding(parts: Sequence[Part]) -> Part:
    """Returns the part that decides a claim about every model: among the parts that have the common
    verdict, the one with the greatest absolute effect.
    """
    verdict = together([part.verdict for part in parts])
    same = (part for part in parts if part.verdict == verdict)
    return max(same, key=lambda part: abs(part.effect or 0.0))


def known(values: Sequence[float | None] | Array) -> Array:
    """Returns the values that are finite."""
    values_N = np.array(values, float)
    return values_N[np.isfinite(values_N)]


def mean(values: Sequence[float | None] | Array, rules: Rules) -> Effect:
    """Returns the mean of the finite values with its t interval; NaN if there are none."""
    known_N = known(values)
    return statistics.mean(known_N, rules.level) if len(known_N) else Effect(nan, None, None, None)


def with_page(effect: Effect, values_BxK: Array) -> Effect:
    """Returns an effect with the p values of Page's test that the columns rise, or fall."""
    rises, falls = statistics.page(values_BxK), statistics.page(values_BxK[:, ::-1])
    return replace(effect, above=rises, below=falls)


def complete(llc_SxM: Array, sizes_M: Array) -> tuple[Array, Array]:
    """Drops the models without any λ̂, and then the shuffles that lack λ̂ of a model."""
    some = np.isfinite(llc_SxM).any(0)
    rows = llc_SxM[:, some]
    return rows[np.isfinite(rows).all(1)], sizes_M[some]


def too_few(llc_SxM: Array, models: int) -> Finding | None:
    """Returns an inconclusive finding if there are fewer than two shuffles or `models` models."""
    shuffles, found = llc_SxM.shape
    if shuffles >= 2 and found >= models:
        return None
    needed = f"two shuffles of {models} models at least would decide it"
    return inconclusive(f"There are {shuffles} shuffles of {found} models; {needed}.")


def words(verdict: Verdict | None, *, supported: str, against: str, undecided: str = "") -> str:
    """Returns the words for a verdict: `supported`, `against` or, for any other, `undecided`."""
    return {"supported": supported, "not supported": against}.get(str(verdict), undecided)


def number(value: float | None) -> str:
    """Writes a number for a sentence."""
    if value is None:
        return "unknown"
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return text.replace("-", "−")


def probability(p: float | None) -> str:
    """Writes a p value for a sentence."""
    return "p unknown" if p is None else "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def span(interval: Interval | None, rules: Rules) -> str:
    """Writes an interval and its confidence for a sentence."""
    between = "unknown" if interval is None else f"{number(interval[0])} to {number(interval[1])}"
    return f"{100 * (1 - rules.level):g} % interval {between}"


def more_shuffles(values_S: Array, rules: Rules) -> str:
    """Says what would decide whether a mean over shuffles is above or below 0."""
    count = statistics.needed(values_S, rules.level)
    if count is None:
        few = f"not even {statistics.MOST} shuffles of this mean and spread would decide it"
        return f"{few}: it takes a less noisy estimate"
    least = max(count, len(values_S) + 1)
    return (
        f"about {least} shuffles of this mean and spread would decide it, or a less noisy estimate"
    )


def left_out(family: Family) -> str:
    """Says how many shuffles were left out and which models were not run; empty if none."""
    shuffles = len(family.llc_SxM)
    lost = shuffles - len(complete(family.llc_SxM, family.parameters_M)[0])
    where = "where all chains of a model diverged"
    told = f" Left out: {lost} of {shuffles} shuffles, {where}." if lost else ""
    return told + not_run(family.missing)


def not_run(models: Sequence[str]) -> str:
    """Says which models were not run; empty if all were."""
    return f" Not run: {', '.join(models)}." if models else ""
