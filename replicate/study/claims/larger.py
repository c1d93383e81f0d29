"""Claim C9: whether the larger model of the second family has the greater λ̂."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from replicate.study.claims.base import Claim, Finding, inconclusive
from replicate.study.claims.evidence import Array, Evidence
from replicate.study.claims.trainings import Table, tables
from replicate.study.claims.units import (
    TRAININGS,
    at_setting,
    checkpoints,
    over_trainings,
    repeated,
)
from replicate.study.claims.verdicts import (
    directed,
    left_out,
    mean,
    more_shuffles,
    number,
    probability,
    span,
    too_few,
)
from replicate.study.records.verdicts import Part
from replicate.study.rules import Rules


class LargerHasMore(Claim):
    """The difference between a model and the next smaller one of the second family is that of ln λ̂
    over trainings, with the pooled variance within sizes, if every size was trained several times;
    otherwise that of λ̂, paired over shuffles, and the verdict is about these checkpoints. The claim
    is supported if its t interval and t test say that it is above 0, and not supported if they say
    that it is below. The two smallest sizes (13B − 7B) decide; other pairs are only reported.
    """

    id = "C9"
    title = "Of the quantised models the larger has the greater λ̂ (Llama-2-13B over 7B)"
    measure = "difference of λ̂, larger minus smaller"
    needs = "λ̂ of two quantised sizes, by stage settings if a size has several trainings"
    sources = (("estimates", "{quantised}: shuffles"), ("original", "{quantised}: shuffles"))
    published_source = "families.llama2.models.*.mean"

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        found, several = tables(evidence.settings, evidence.quantised_name, rules)
        if several and evidence.quantised_name != evidence.full_name:
            return _over_trainings(found, rules)
        if evidence.quantised is None or repeated(evidence.quantised):
            return None
        family, start, lost = checkpoints(evidence.quantised, evidence)
        both_Sx2 = _paired(family.llc_SxM, 1)
        if (finding := too_few(both_Sx2, 2)) is not None:
            return finding
        models, parts = family.models, []
        for estimator, llc_SxM in family.estimates.items():
            for i in range(1, len(models)):
                pair_Sx2 = _paired(llc_SxM, i)
                if too_few(pair_Sx2, 2) is None:
                    name = f"{models[i]} − {models[i - 1]}, {estimator}"
                    parts.append(directed(name, mean(np.diff(pair_Sx2)[:, 0], rules), rules.level))
        chief = parts[0]
        why = (
            f"λ̂ of {models[1]} minus that of {models[0]} is {number(chief.effect)} "
            f"({span(chief.interval, rules)}; {probability(chief.p_value)}, "
            f"{len(both_Sx2)} shuffles)"
        )
        if chief.verdict == "inconclusive":
            why += f"; {more_shuffles(np.diff(both_Sx2)[:, 0], rules)}"
        return Finding(chief, f"{start}{why}.{left_out(family)}{lost}", parts)


def _over_trainings(found: Sequence[Table], rules: Rules) -> Finding:
    """Judges C9 on trainings."""
    main = at_setting(found, rules.trainings.setting)
    if isinstance(main, Finding):
        return main
    if main.different < 2:
        return inconclusive(f"Two sizes at least would decide it.{main.omitted}")
    parts: list[Part] = []
    for table in (main, *(each for each in found if each is not main and each.whole)):
        layout = table.layout()
        for k in range(1, len(table.sizes)):
            name = f"{table.sizes[k]} over {table.sizes[k - 1]}, {table.name}: ln of the ratio"
            parts.append(directed(name, layout.gap(k, k - 1, rules.level), rules.level))
    chief = parts[0]
    why = (
        f"At {main.name}, where {main.measured}, ln λ̂ of {main.sizes[1]} minus that of "
        f"{main.sizes[0]} is {number(chief.effect)} ({span(chief.interval, rules)} "
        f"{over_trainings(main, rules)}; {probability(chief.p_value)})"
    )
    why += "; more trainings would decide it." if chief.verdict == "inconclusive" else "."
    measure = "difference of ln λ̂ over trainings, larger minus smaller"
    return Finding(chief, why + main.omitted, parts, measure, TRAININGS)


def _paired(llc_SxM: Array, i: int) -> Array:
    """Returns λ̂ of models `i` − 1 and `i` (shuffle, 2) in the shuffles that have both."""
    both = llc_SxM[:, i - 1 : i + 1]
    return both[np.isfinite(both).all(1)]
