"""How an effect becomes a verdict, and a verdict a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from replicate.estimation import statistics as inference
from replicate.estimation.statistics import Effect, Interval
from replicate.study.claims.evidence import Array, Family, Rules
from replicate.study.records import Part, Verdict


@dataclass(frozen=True)
class Finding:
    """What a claim's test found; `p` is of the one-sided test in the claim's direction."""

    verdict: Verdict
    why: str
    effect: float | None = None
    interval: Interval | None = None
    p: float | None = None
    parts: tuple[Part, ...] = ()


def directed(effect: Effect, level: float, null: float = 0.0, below: bool = False) -> Verdict:
    """Of a claim that the effect is above `null`, or below it: its test and its interval must say
    so, for either verdict.
    """
    if effect.interval is None or effect.above is None or effect.below is None:
        return "inconclusive"
    up = effect.above < level and effect.interval[0] > null
    down = effect.below < level and effect.interval[1] < null
    if down if below else up:
        return "supported"
    return "not supported" if up or down else "inconclusive"


def equivalent(interval: Interval | None, margin: float) -> Verdict:
    """Of a claim that the effect is none: the interval lies within ± `margin`, or wholly
    outside.
    """
    if interval is None:
        return "inconclusive"
    low, high = interval
    if -margin <= low and high <= margin:
        return "supported"
    return "not supported" if low > margin or high < -margin else "inconclusive"


def together(verdicts: Sequence[Verdict | None]) -> Verdict:
    """Of a claim about every model: supported where it is for all, not supported where it fails for
    one; None does not count.
    """
    counted = {verdict for verdict in verdicts if verdict is not None}
    if "not supported" in counted:
        return "not supported"
    return "supported" if counted == {"supported"} else "inconclusive"


def deciding(parts: Sequence[Part], verdict: Verdict) -> Part:
    """What the verdict on every model rests on: of the parts with that verdict, the one with the
    greatest effect in size.
    """
    return max(
        (part for part in parts if part.verdict == verdict),
        key=lambda part: abs(part.effect or 0.0),
    )


def piece(
    name: str,
    verdict: Verdict | None,
    effect: float | None,
    interval: Interval | None = None,
    p: float | None = None,
) -> Part:
    return Part(name=name, verdict=verdict, effect=effect, interval=interval, p_value=p)


def complete(llc_GxM: Array, sizes_M: Array) -> tuple[Array, Array]:
    """Without models of which there is nothing, and then without the shuffles that lack a model."""
    some = np.isfinite(llc_GxM).any(0)
    rows = llc_GxM[:, some]
    return rows[np.isfinite(rows).all(1)], sizes_M[some]


def few(llc_GxM: Array, models: int) -> Finding | None:
    """Too little for a test over shuffles."""
    if len(llc_GxM) >= 2 and llc_GxM.shape[1] >= models:
        return None
    here = f"{len(llc_GxM)} shuffles of {llc_GxM.shape[1]} models"
    return Finding(
        "inconclusive",
        f"There are {here}; two shuffles of {models} models at least would decide it.",
    )


def number(value: float | None) -> str:
    return (
        "unknown"
        if value is None
        else (f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}").replace("-", "−")
    )


def probability(p: float | None) -> str:
    return "p unknown" if p is None else "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def span(interval: Interval | None, rules: Rules) -> str:
    between = "unknown" if interval is None else f"{number(interval[0])} to {number(interval[1])}"
    return f"{100 * (1 - rules.level):g} % interval {between}"


def more(values_G: Array, rules: Rules) -> str:
    """What would decide whether a mean over shuffles is above or below 0."""
    count = inference.needed(values_G, rules.level)
    if count is None:
        return f"not even {inference.MOST} shuffles of this mean and spread would decide it: it takes a less noisy estimate"
    return f"about {max(count, len(values_G) + 1)} shuffles of this mean and spread would decide it, or a less noisy estimate"


def left_out(family: Family) -> str:
    """A sentence on what is not in the evidence; empty where all is."""
    lost = len(family.llc_GxM) - len(complete(family.llc_GxM, family.parameters_M)[0])
    words = (
        f" Left out: {lost} of {len(family.llc_GxM)} shuffles, where all chains of a model failed."
        if lost
        else ""
    )
    return words + not_run(family)


def not_run(*families: Family) -> str:
    missing = [name for family in families for name in family.missing]
    return f" Not run: {', '.join(missing)}." if missing else ""
