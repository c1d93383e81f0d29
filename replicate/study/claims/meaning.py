"""Claims R1 and R2: what λ̂ measures at a setting, and whether it belongs to the function."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

from replicate.estimation import statistics
from replicate.estimation.layouts import Layout
from replicate.estimation.statistics import Interval
from replicate.study.claims.base import Claim, Finding, not_decided, part
from replicate.study.claims.evidence import Evidence
from replicate.study.claims.trainings import (
    MEASURED,
    Table,
    layout,
    log_llc,
    named,
    tables,
    unjudged,
)
from replicate.study.claims.verdicts import deciding, known, number, span, together, words
from replicate.study.records import Setting
from replicate.study.records.settings import ends
from replicate.study.records.verdicts import Part, Verdict
from replicate.study.rules import Rules

Measure = Callable[[Setting], tuple[float, float]]


def between(sure: Interval, likely: Interval, low: float, high: float) -> Verdict:
    """Judges the claim that an effect lies between two limits.

    Args:
        sure: its interval of confidence 1 − 2·level (90 %), which must lie within the limits.
        likely: its interval of confidence 1 − level (95 %), which must not lie outside.
        low, high: the limits.
    """
    if low <= sure[0] and sure[1] <= high:
        return "supported"
    return "not supported" if likely[0] > high or likely[1] < low else "inconclusive"


class IsCurvature(Claim):
    """At a setting the claim is supported if for every size the 90 % intervals of
    ρ = λ̂/(½·nβ·tr(H)/γ) and of E[V]/λ̂ lie within 1 ± `curvature` and 2 ± `quadratic`; it is not
    supported if for a size a 95 % interval lies outside. Intervals are over trainings with the
    pooled variance within sizes, those of ρ on the log scale; where tr(H) is known of one training
    of each size, they are those of its draws. It is supported if it is at all settings, and not
    supported if it fails at one. Chains that escaped or are not in equilibrium are not judged.
    """

    id = "R1"
    title = "λ̂ is curvature at its setting"
    measure = "ρ, λ̂ over ½·nβ·tr(H)/γ, where it is farthest from 1"
    needs = "λ̂ of every size at one setting, with tr(H) and E[V]"
    sources = (("settings", "llc, trace, degree, regime"),)
    published_source = "families.*.models.*.mean"

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        if evidence.published is not None:
            return not_decided(
                "Neither the trace of the Hessian nor E[V] was published, and λ̂ without them does "
                "not tell curvature from anything else."
            )
        families = dict.fromkeys(row.family for row in evidence.settings)
        found = [tables(evidence.settings, family, rules) for family in families]
        every, parts, told = [table for each, _ in found for table in each], [], []
        for table in every:
            mine = _of_table(table, rules)
            parts += mine
            verdict = together([each.verdict for each in mine])
            told.append(f"{verdict} at {table.name}, {table.sizes[0]} to {table.sizes[-1]}")
            told[-1] += f", where {table.measured}"
        if not every:
            return None
        verdict = together([each.verdict for each in parts])
        ratios = [p for p in parts if p.verdict == verdict and p.name.endswith(RATIO) and p.effect]
        worst = max(ratios, key=lambda p: abs(math.log(p.effect or 1.0)), default=part(""))
        why = "; ".join(told) + "."
        if verdict == "inconclusive":
            why += " Longer chains, tr(H) of more trainings, or more trainings would decide it."
        start = "" if any(several for _, several in found) else "For these checkpoints: "
        why = start + why + "".join(table.omitted for table in every)
        return Finding(part("", verdict, worst.effect, worst.interval), why, parts)


RATIO, DEGREE = "λ̂ over ½·nβ·tr(H)/γ", "E[V]/λ̂"


def _of_table(table: Table, rules: Rules) -> list[Part]:
    """Judges R1 at one setting."""
    limits = rules.trainings
    traced = [row for row in table.rows if row.trace is not None and row.trace[0] > 0]
    grown = [row for row in table.rows if row.degree is not None]
    ratio = (1 - limits.curvature, 1 + limits.curvature)
    degree = (2 - limits.quadratic, 2 + limits.quadratic)
    parts = []
    for size in table.sizes:
        name = f"{size}, {table.name}: "
        parts += [
            _judged(name + RATIO, table, traced, size, _log_ratio, ratio, rules, math.exp),
            _judged(name + DEGREE, table, grown, size, _degree, degree, rules, float),
        ]
    return parts


def _judged(
    name: str,
    table: Table,
    rows: Sequence[Setting],
    size: str,
    measure: Measure,
    limits: Interval,
    rules: Rules,
    scale: Callable[[float], float],
) -> Part:
    """Judges whether the mean of `scale(measure)` of a size lies between two limits."""
    if not any(row.size == size for row in rows):
        return part(name, "inconclusive")
    found = layout(table.sizes, rows, measure)
    group = found.group_N[next(i for i, row in enumerate(rows) if row.size == size)]
    sure, likely = (
        _scaled(found, int(group), level, scale) for level in (2 * rules.level, rules.level)
    )
    value = scale(found.mean(int(group), rules.level).value)
    return part(name, between(sure, likely, *limits), value, likely)


def _scaled(found: Layout, group: int, level: float, scale: Callable[[float], float]) -> Interval:
    low, high = found.mean(group, level).interval or (-math.inf, math.inf)
    return scale(low), scale(high)


def _log_ratio(row: Setting) -> tuple[float, float]:
    """Returns ln ρ and its standard error."""
    value, error = log_llc(row)
    trace, of_trace = row.trace or (math.nan, math.nan)
    curvature = row.nbeta * trace / (2 * row.localization)
    return value - math.log(curvature), math.hypot(error, of_trace / trace)


def _degree(row: Setting) -> tuple[float, float]:
    return row.degree or (math.nan, math.nan)


class BelongsToTheFunction(Claim):
    """A model is rescaled by an exact symmetry, and δ = ln λ̂(rescaled)/λ̂ is taken on common noise.
    For a setting and a symmetry the claim is supported if the 90 % t interval of δ over models lies
    within ± `invariant`, and not supported if the 95 % interval lies outside; it takes `pairs`
    models. It is supported if it is for all of them, and not supported if it fails for one. A pair
    is not judged if chains of either escaped or are not in equilibrium.
    """

    id = "R2"
    title = "λ̂ belongs to the function, not to its parametrisation"
    measure = "δ = ln λ̂(rescaled)/λ̂, mean over models, where it is greatest"
    needs = "λ̂ of rescaled models"
    sources = (("settings", "llc, rescaled, regime"),)
    published_source = "families.*.models.*.mean"

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        if evidence.published is not None:
            return not_decided("No rescaled model was sampled.")
        pairs, lost = _pairs(evidence.settings)
        if not pairs and not lost:
            return None
        parts, told = [], []
        for (symmetry, loss, nbeta, gamma), both in pairs.items():
            setting = named(loss, nbeta, gamma)
            regimes = sorted({MEASURED[before.regime] for before, _ in both})
            name = f"{symmetry}, {setting}"
            judged = _invariance(name, [_change(*each) for each in both], rules)
            parts.append(judged)
            told.append(
                f"{symmetry} at {setting}, where λ̂ is {' or '.join(regimes)}: "
                f"{number(judged.effect)} ({span(judged.interval, rules)} over {len(both)} models)"
            )
        omitted = ", ".join(f"{count} {reason}" for reason, count in lost.items())
        left = f" Pairs not judged: {lost.total()} ({omitted})." if lost else ""
        if not parts:
            return Finding(part("", "inconclusive"), f"Chains that stay would decide it.{left}")
        chief = deciding(parts)
        fewest, needed = min(len(both) for both in pairs.values()), rules.trainings.pairs
        more = "more models" if fewest >= needed else f"at least {needed} models"
        ending = words(
            chief.verdict,
            supported="it stays within",
            against="it goes beyond",
            undecided=f"{more} would decide whether it stays within",
        )
        margin = f"± {rules.trainings.invariant:g}"
        why = f"δ by {'; by '.join(told)}: {ending} {margin}.{left}"
        return Finding(chief, why, parts)


Pairs = dict[tuple[str, str, float, float], list[tuple[Setting, Setting]]]


def _pairs(rows: Sequence[Setting]) -> tuple[Pairs, Counter[str]]:
    """Pairs each rescaled model with itself, by symmetry and setting, and counts the pairs that
    are not judged by reason.
    """

    def key(row: Setting) -> tuple[str, str, float, float]:
        return row.model, row.loss, row.nbeta, row.localization

    rows = [row for row in ends(rows) if row.text == "corpus" and row.minimised is None]
    before = {key(row): row for row in rows if row.rescaled is None}
    found: Pairs = {}
    lost: Counter[str] = Counter()
    for row in rows:
        if row.rescaled is None:
            continue
        own = before.get(key(row))
        reason = "without the model itself" if own is None else unjudged(own) or unjudged(row)
        if own is None or reason:
            lost[reason] += 1
        else:
            setting = (row.rescaled, row.loss, row.nbeta, row.localization)
            found.setdefault(setting, []).append((own, row))
    return found, lost


def _change(before: Setting, after: Setting) -> float:
    return log_llc(after)[0] - log_llc(before)[0]


def _invariance(name: str, changes: Sequence[float], rules: Rules) -> Part:
    """Judges R2 for one symmetry at one setting."""
    delta_N, margin = known(changes), rules.trainings.invariant
    sure, likely = (statistics.mean(delta_N, level) for level in (2 * rules.level, rules.level))
    enough = len(delta_N) >= rules.trainings.pairs
    verdict: Verdict = "inconclusive"
    if enough and sure.interval is not None and likely.interval is not None:
        verdict = between(sure.interval, likely.interval, -margin, margin)
    return part(name, verdict, likely.value, likely.interval)
