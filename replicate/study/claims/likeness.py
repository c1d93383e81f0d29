"""Compares λ̂ of two families over trainings, for claim C11."""

from __future__ import annotations

import numpy as np

from replicate.estimation.layouts import Layout
from replicate.estimation.statistics import Effect
from replicate.study.claims.base import Finding, inconclusive, part
from replicate.study.claims.evidence import Evidence
from replicate.study.claims.trainings import Table, tables
from replicate.study.claims.units import TRAININGS, at_setting
from replicate.study.claims.verdicts import deciding, equivalent, number, span, words
from replicate.study.records.verdicts import Part, Verdict
from replicate.study.rules import Rules


def over_trainings(evidence: Evidence, rules: Rules) -> Finding | None:
    """Judges C11 where every size of a family was trained several times; None if it was not."""
    names = evidence.full_name, evidence.quantised_name
    found = [tables(evidence.settings, name, rules) for name in names]
    if names[0] == names[1] or not any(several for _, several in found):
        return None
    first, second = (at_setting(each, rules.trainings.setting) for each, _ in found)
    if isinstance(first, Finding):
        return first
    if isinstance(second, Finding):
        return second
    if first.different < 3:
        return inconclusive("A power law needs three sizes of the first family; they would decide.")
    parts = _against_law(first, second, rules)
    chief, ratio = deciding(parts), _nearest(first, second, rules)
    law = f"the power law of {names[0]}"
    ending = words(
        chief.verdict,
        supported=f"every size of {names[1]} lies on {law}",
        against=f"a size of {names[1]} lies outside the prediction interval of {law}",
        undecided=f"it is open whether the sizes of {names[1]} lie on {law}; more trainings would "
        "decide it",
    )
    why = (
        f"At {first.name}, where {first.measured}, {ending}: λ̂ of {chief.name.split(':')[0]} "
        f"differs from it by {number(chief.effect)} of itself ({span(chief.interval, rules)} over "
        f"trainings).{_moving(evidence)}{first.omitted}{second.omitted}"
    )
    judged = part("", chief.verdict, ratio.effect, ratio.interval)
    return Finding(judged, why, (ratio, *parts), sources=TRAININGS)


def _moving(evidence: Evidence) -> str:
    """Returns a sentence on the families whose chains do not move all parameters."""
    found = []
    for family in (evidence.full, evidence.quantised):
        share_M = np.ones(1) if family is None else family.sampled_M / family.parameters_M
        if family is not None and share_M.min() < 1:
            low, high = (f"{100 * share:.0f}" for share in (share_M.min(), share_M.max()))
            found.append(f" Chains move {low} to {high} % of the parameters of {family.name}.")
    return "".join(found)


def _both(first: Table, second: Table) -> Layout:
    """Returns ln λ̂ of both families as one layout; the groups of the second come last."""
    a, b = first.layout(), second.layout()
    return Layout(
        np.concatenate([a.values_N, b.values_N]),
        np.concatenate([a.group_N, b.group_N + len(first.sizes)]),
        np.concatenate([a.errors_N, b.errors_N]),
    )


def _against_law(first: Table, second: Table, rules: Rules) -> list[Part]:
    """Compares the mean ln λ̂ of each size of the second family with the first family's law."""
    both, x_F, K = _both(first, second), first.log_sizes_N, len(first.sizes)
    spread = float(((x_F - x_F.mean()) ** 2).sum())
    parts = []
    for q, size in enumerate(second.sizes):
        mine_N = both.group_N == K + q
        x = float(np.unique(second.log_sizes_N)[q])
        law_F = 1 / len(x_F) + (x_F - x_F.mean()) * (x - x_F.mean()) / spread
        weights_N = mine_N / mine_N.sum()
        weights_N[: len(law_F)] -= law_F
        off = both.contrast(weights_N, rules.level)
        wide = both.contrast(weights_N, rules.level / len(second.sizes))
        band = _above_one(off)
        near: Verdict = equivalent(band, rules.negligible)
        near = "supported" if near == "supported" else "inconclusive"
        outside = wide.interval is not None and (wide.interval[0] > 0 or wide.interval[1] < 0)
        verdict: Verdict = "not supported" if outside else near
        title = f"{size}: λ̂ over the power law of the other family, minus 1"
        parts.append(part(title, verdict, float(np.expm1(off.value)), band))
    return parts


def _above_one(effect: Effect) -> tuple[float, float] | None:
    """Returns the interval of a ratio minus 1 from that of its logarithm."""
    if effect.interval is None:
        return None
    low, high = effect.interval
    return float(np.expm1(low)), float(np.expm1(high))


def _nearest(first: Table, second: Table, rules: Rules) -> Part:
    """Returns the ratio of λ̂ per parameter at the nearest sizes, second family over first."""
    both, K = _both(first, second), len(first.sizes)
    x_F, x_Q = (
        np.array(
            [table.log_sizes_N[table.layout().group_N == k][0] for k in range(len(table.sizes))]
        )
        for table in (first, second)
    )
    apart = np.abs(x_Q[:, None] - x_F)
    q, f = map(int, np.unravel_index(np.argmin(apart), apart.shape))
    gap, shift = both.gap(K + q, f, rules.level), float(x_Q[q] - x_F[f])
    value, low, high = (float(np.exp(x - shift)) for x in (gap.value, *(gap.interval or ())))
    name = f"{second.sizes[q]} over {first.sizes[f]}: λ̂ per sampled parameter"
    return part(name, None, value, (low, high))
