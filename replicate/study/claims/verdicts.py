"""Turns effects into verdicts, and verdicts into sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from replicate.estimation import statistics
from replicate.estimation.statistics import Effect, Interval
from replicate.study.claims.base import Finding
from replicate.study.claims.evidence import Array, Family, Rules
from replicate.study.records import Part, Verdict


def directed(effect: Effect, level: float, null: float = 0.0, below: bool = False) -> Verdict:
    """Judges the claim that an effect is above `null`. Either verdict needs both the one-sided test
    and the interval.

    Args:
        effect: the effect, its interval and its one-sided p values.
        level: the significance level of the tests.
        null: the value that the effect is compared with.
        below: whether the claim is that the effect is below `null`.
    """
    if effect.interval is None or effect.above is None or effect.below is None:
        return "inconclusive"
    up = effect.above < level and effect.interval[0] > null
    down = effect.below < level and effect.interval[1] < null
    if down if below else up:
        return "supported"
    return "not supported" if up or down else "inconclusive"


def equivalent(interval: Interval | None, margin: float) -> Verdict:
    """Judges the claim that there is no effect. It is supported if the interval lies within
    ± `margin`, and not supported if the interval lies wholly outside.
    """
    if interval is None:
        return "inconclusive"
    low, high = interval
    if -margin <= low and high <= margin:
        return "supported"
    return "not supported" if low > margin or high < -margin else "inconclusive"


def together(verdicts: Sequence[Verdict | None]) -> Verdict:
    """Judges a claim about every model. It is supported if it holds for all of them, and not
    supported if it fails for one. Verdicts of None do not count.
    """
    counted = {verdict for verdict in verdicts if verdict is not None}
    if "not supported" in counted:
        return "not supported"
    return "supported" if counted == {"supported"} else "inconclusive"


def deciding(parts: Sequence[Part]) -> Part:
    """Returns the part that decides a claim about every model: among the parts that have the common
    verdict, the one with the greatest absolute effect.
    """
    verdict = together([part.verdict for part in parts])
    same = (part for part in parts if part.verdict == verdict)
    return max(same, key=lambda part: abs(part.effect or 0.0))


def part(
    name: str,
    verdict: Verdict | None,
    effect: float | None,
    interval: Interval | None = None,
    p: float | None = None,
) -> Part:
    """Returns a part; a verdict of None reports it without judging it."""
    return Part(name=name, verdict=verdict, effect=effect, interval=interval, p_value=p)


def directed_part(
    name: str, effect: Effect, level: float, null: float = 0.0, below: bool = False
) -> Part:
    """Returns a part that is judged by `directed`, with the p value in the claim's direction."""
    verdict = directed(effect, level, null, below)
    p = effect.below if below else effect.above
    return part(name, verdict, effect.value, effect.interval, p)


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
    return Finding("inconclusive", f"There are {shuffles} shuffles of {found} models; {needed}.")


def words(verdict: Verdict | None, *, supported: str, against: str, undecided: str) -> str:
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
    words = f" Left out: {lost} of {shuffles} shuffles, {where}." if lost else ""
    return words + not_run(family)


def not_run(*families: Family) -> str:
    """Says which models were not run; empty if all were."""
    return names_not_run([name for family in families for name in family.missing])


def names_not_run(names: Sequence[str]) -> str:
    """Says that these models were not run; empty if there are none."""
    return f" Not run: {', '.join(names)}." if names else ""
