"""Claims C1, C2 and C9: how λ̂ changes with model size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from replicate.estimation import statistics
from replicate.estimation.statistics import Effect
from replicate.seeds import derive
from replicate.study.claims.base import Claim, Finding
from replicate.study.claims.evidence import ORIGINAL, Array, Evidence, Family, Rules
from replicate.study.claims.verdicts import (
    complete,
    directed_part,
    left_out,
    more_shuffles,
    number,
    part,
    probability,
    span,
    too_few,
)
from replicate.study.records import Part

FULL = (("estimates", "{full}: shuffles"), ("original", "{full}: shuffles"))


class GrowsWithSize(Claim):
    id = "C1"
    title = "λ̂ grows with model size"
    rule = (
        "Supported where Page's test (shuffles as blocks, exact) is significant and the t interval "
        "of λ̂ per doubling lies above 0; not supported where both say so of a fall. Beside it: the "
        "bootstrap of the rank correlation, the analysis of variance, other estimators."
    )
    measure = "λ̂ per doubling of size"
    needs = "λ̂ of the full-precision family"
    sources = FULL
    published_source = "families.gpt2.models.*.mean"

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        family = evidence.full
        if family is None:
            return None
        llc_SxM, sizes_M = complete(family.llc_SxM, family.parameters_M)
        if (finding := too_few(llc_SxM, 3)) is not None:
            return finding
        chief = directed_part("", _trend(llc_SxM, sizes_M, rules), rules.level)
        parts = [p for found in _by_estimator(family) for p in _trend_parts(*found, rules)]
        why = (
            f"λ̂ changes by {number(chief.effect)} per doubling of size "
            f"({span(chief.interval, rules)}; Page's test {probability(chief.p_value)})"
        )
        if chief.verdict != "inconclusive":
            falls = chief.effect is not None and chief.effect < 0
            way = "falls" if falls else "grows"
            why += f" in {len(llc_SxM)} shuffles of {len(sizes_M)} models: it {way}."
        else:
            if chief.p_value is not None and chief.p_value < rules.level:
                why += _only_in_order(family, llc_SxM)
            slopes_S = statistics.slopes(llc_SxM, np.log2(sizes_M))
            why += f"; {more_shuffles(slopes_S, rules)}."
        return Finding.on(chief, why + left_out(family), parts)


def _only_in_order(family: Family, llc_SxM: Array) -> str:
    """Explains how the models' order can be significant when their differences are not."""
    shared = ", where the models share the baseline minibatch,"
    return (
        ". Page's test uses only the order within a shuffle"
        f"{shared if family.estimator == ORIGINAL else ''} and that follows size; but the "
        "differences are not large against their scatter over shuffles (analysis of variance "
        f"{probability(statistics.anova(llc_SxM).p)})"
    )


def _by_estimator(family: Family) -> Iterator[tuple[str, Array, Array]]:
    """Yields each estimator with enough data, its λ̂ (shuffle, model) and the models' sizes (M,)."""
    for estimator, llc_SxM in family.estimates.items():
        rows, sizes_M = complete(llc_SxM, family.parameters_M)
        if too_few(rows, 3) is None:
            yield estimator, rows, sizes_M


def _trend(llc_SxM: Array, sizes_M: Array, rules: Rules) -> Effect:
    """Returns the change of λ̂ per doubling of size, its t interval, and Page's p values."""
    slope = statistics.mean(statistics.slopes(llc_SxM, np.log2(sizes_M)), rules.level)
    rises, falls = statistics.page(llc_SxM), statistics.page(llc_SxM[:, ::-1])
    return Effect(slope.value, slope.interval, rises, falls)


def _trend_parts(estimator: str, llc_SxM: Array, sizes_M: Array, rules: Rules) -> list[Part]:
    """Returns the slope, the rank correlation and the analysis of variance of one estimator."""
    ranks_S = statistics.rank_correlations(llc_SxM, sizes_M)
    seed = derive(rules.seed, "claims", "C1", estimator)
    resampled = statistics.bootstrap(ranks_S, rules.level, rules.bootstrap, seed)
    variance = statistics.anova(llc_SxM)
    slope, rank, share = (
        f"{estimator}: {name}"
        for name in (
            "λ̂ per doubling, Page's test",
            "rank correlation with size, bootstrap over shuffles",
            "models' share of the variance, analysis of variance",
        )
    )
    return [
        directed_part(slope, _trend(llc_SxM, sizes_M, rules), rules.level),
        part(rank, None, float(ranks_S.mean()), resampled),
        part(share, None, variance.columns, None, variance.p),
    ]


class Diminishes(Claim):
    id = "C2"
    title = "The gain of λ̂ per doubling of size diminishes"
    rule = (
        "The second difference of λ̂ over a doubling (least squares over all models), by shuffle: "
        "supported where its t interval and test say that it is below 0, not supported where "
        "above. Beside it the exponent of λ̂ ~ sizeᵃ against 1, where all λ̂ are above 0."
    )
    measure = "change of that gain from one doubling to the next"
    needs = "λ̂ of the full-precision family"
    sources = FULL
    published_source = "families.gpt2.models.*.mean"

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        family = evidence.full
        if family is None:
            return None
        llc_SxM, sizes_M = complete(family.llc_SxM, family.parameters_M)
        if (finding := too_few(llc_SxM, 3)) is not None:
            return finding
        chief = _bend("", llc_SxM, sizes_M, rules)
        parts = []
        for estimator, rows, sizes in _by_estimator(family):
            parts.append(_bend(f"{estimator}: change of the gain", rows, sizes, rules))
            if (rows > 0).all():
                powers_S = statistics.slopes(np.log(rows), np.log(sizes))
                power = statistics.mean(powers_S, rules.level, null=1.0)
                name = f"{estimator}: exponent a of λ̂ ~ sizeᵃ, below 1"
                parts.append(directed_part(name, power, rules.level, null=1.0, below=True))
        why = (
            f"The gain per doubling changes by {number(chief.effect)} from one doubling to the "
            f"next ({span(chief.interval, rules)})"
        )
        if chief.verdict == "inconclusive":
            bends_S = statistics.curvatures(llc_SxM, np.log2(sizes_M))
            why += f"; {more_shuffles(bends_S, rules)}."
        else:
            why += ": it diminishes." if chief.verdict == "supported" else ": it grows."
        return Finding.on(chief, why + left_out(family), parts)


def _bend(name: str, llc_SxM: Array, sizes_M: Array, rules: Rules) -> Part:
    """Judges the second difference of λ̂ over a doubling of size."""
    bend = statistics.mean(statistics.curvatures(llc_SxM, np.log2(sizes_M)), rules.level)
    return directed_part(name, bend, rules.level, below=True)


class LargerHasMore(Claim):
    id = "C9"
    title = "Of the quantised models the larger has the greater λ̂ (Llama-2-13B over 7B)"
    rule = (
        "The difference of λ̂ between a quantised model and the next smaller one, paired over "
        "shuffles: supported where its t interval and test say that it is above 0, not supported "
        "where below. The verdict is that of the two smallest (13B − 7B), other pairs stand beside "
        "it."
    )
    measure = "difference of λ̂, larger minus smaller"
    needs = "λ̂ of two quantised models"
    sources = (("estimates", "{quantised}: shuffles"), ("original", "{quantised}: shuffles"))
    published_source = "families.llama2.models.*.mean"

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        family = evidence.quantised
        if family is None:
            return None
        both_Sx2 = _paired(family.llc_SxM, 1)
        if (finding := too_few(both_Sx2, 2)) is not None:
            return finding
        models, parts = family.models, []
        for estimator, llc_SxM in family.estimates.items():
            for i in range(1, len(models)):
                pair_Sx2 = _paired(llc_SxM, i)
                if too_few(pair_Sx2, 2) is None:
                    name = f"{models[i]} − {models[i - 1]}, {estimator}"
                    parts.append(_difference(name, pair_Sx2, rules))
        chief = _difference("", both_Sx2, rules)
        why = (
            f"λ̂ of {models[1]} minus that of {models[0]} is {number(chief.effect)} "
            f"({span(chief.interval, rules)}; {probability(chief.p_value)}, "
            f"{len(both_Sx2)} shuffles)"
        )
        if chief.verdict == "inconclusive":
            why += f"; {more_shuffles(np.diff(both_Sx2)[:, 0], rules)}"
        return Finding.on(chief, f"{why}.{left_out(family)}", parts)


def _difference(name: str, pair_Sx2: Array, rules: Rules) -> Part:
    """Judges whether λ̂ of the second model of a pair is greater than that of the first."""
    return directed_part(name, statistics.mean(np.diff(pair_Sx2)[:, 0], rules.level), rules.level)


def _paired(llc_SxM: Array, i: int) -> Array:
    """Returns λ̂ of models `i` − 1 and `i` (shuffle, 2) in the shuffles that have both."""
    both = llc_SxM[:, i - 1 : i + 1]
    return both[np.isfinite(both).all(1)]
