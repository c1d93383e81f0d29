"""C1, C2, C9: how λ̂ goes with size."""

from __future__ import annotations

import numpy as np

from replicate.estimation import statistics as inference
from replicate.estimation.statistics import Effect
from replicate.seeds import derive
from replicate.study.claims.evidence import ORIGINAL, Array, Evidence, Family, Rules
from replicate.study.claims.verdicts import (
    Finding,
    complete,
    directed,
    few,
    left_out,
    more,
    number,
    piece,
    probability,
    span,
)
from replicate.study.records import Part


def rises(evidence: Evidence, rules: Rules) -> Finding | None:
    """C1. Supported where Page's test (shuffles as blocks, exact) is significant and the t interval
    of λ̂ per doubling lies above 0; not supported where both say so of a fall. Beside it: the
    bootstrap of the rank correlation, the analysis of variance, other estimators.
    """
    family = evidence.full
    if family is None:
        return None
    llc_GxM, sizes_M = complete(family.llc_GxM, family.parameters_M)
    if (finding := few(llc_GxM, 3)) is not None:
        return finding
    effect = trend(llc_GxM, sizes_M, rules)
    verdict = directed(effect, rules.level)
    parts = []
    for estimator, other_GxM in family.estimates.items():
        rows, sizes = complete(other_GxM, family.parameters_M)
        if few(rows, 3) is None:
            parts += trend_parts(estimator, rows, sizes, rules)
    why = f"λ̂ changes by {number(effect.value)} per doubling of size ({span(effect.interval, rules)}; "
    why += f"Page's test {probability(effect.above)})"
    if verdict != "inconclusive":
        why += f" in {len(llc_GxM)} shuffles of {len(sizes_M)} models: it {'falls' if effect.value < 0 else 'grows'}."
    else:
        if effect.above is not None and effect.above < rules.level:
            shared = (
                ", where the models share the baseline minibatch,"
                if family.estimator == ORIGINAL
                else ""
            )
            why += f". Page's test uses only the order within a shuffle{shared} and that follows size; but the differences are not large "
            why += f"against their scatter over shuffles (analysis of variance {probability(inference.anova(llc_GxM).p)})"
        why += f"; {more(inference.slopes(llc_GxM, np.log2(sizes_M)), rules)}."
    return Finding(
        verdict, why + left_out(family), effect.value, effect.interval, effect.above, tuple(parts)
    )


def trend(llc_GxM: Array, sizes_M: Array, rules: Rules) -> Effect:
    """λ̂ per doubling of size with its t interval, and Page's tests instead of Student's."""
    slope = inference.mean(inference.slopes(llc_GxM, np.log2(sizes_M)), rules.level)
    return Effect(
        slope.value, slope.interval, inference.page(llc_GxM), inference.page(llc_GxM[:, ::-1])
    )


def trend_parts(estimator: str, llc_GxM: Array, sizes_M: Array, rules: Rules) -> list[Part]:
    """The slope, the rank correlation and the analysis of variance of one estimator."""
    slope = trend(llc_GxM, sizes_M, rules)
    ranks_G = inference.rank_correlations(llc_GxM, sizes_M)
    resampled = inference.bootstrap(
        ranks_G, rules.level, rules.bootstrap, derive(rules.seed, "claims", "C1", estimator)
    )
    variance = inference.anova(llc_GxM)
    return [
        piece(
            f"{estimator}: λ̂ per doubling, Page's test",
            directed(slope, rules.level),
            slope.value,
            slope.interval,
            slope.above,
        ),
        piece(
            f"{estimator}: rank correlation with size, bootstrap over shuffles",
            None,
            float(ranks_G.mean()),
            resampled,
        ),
        piece(
            f"{estimator}: models' share of the variance, analysis of variance",
            None,
            variance.columns,
            None,
            variance.p,
        ),
    ]


def diminishes(evidence: Evidence, rules: Rules) -> Finding | None:
    """C2. The second difference of λ̂ over a doubling (least squares over all models), by shuffle:
    supported where its t interval and test say that it is below 0, not supported where above.
    Beside it the exponent of λ̂ ~ sizeᵃ against 1, where all λ̂ are above 0.
    """
    family = evidence.full
    if family is None:
        return None
    llc_GxM, sizes_M = complete(family.llc_GxM, family.parameters_M)
    if (finding := few(llc_GxM, 3)) is not None:
        return finding
    bends_G = inference.curvatures(llc_GxM, np.log2(sizes_M))
    effect = inference.mean(bends_G, rules.level)
    verdict = directed(effect, rules.level, below=True)
    parts = []
    for estimator, other_GxM in family.estimates.items():
        rows, sizes = complete(other_GxM, family.parameters_M)
        if few(rows, 3) is not None:
            continue
        bend = inference.mean(inference.curvatures(rows, np.log2(sizes)), rules.level)
        parts.append(
            piece(
                f"{estimator}: change of the gain",
                directed(bend, rules.level, below=True),
                bend.value,
                bend.interval,
                bend.below,
            )
        )
        if (rows > 0).all():
            power = inference.mean(
                inference.slopes(np.log(rows), np.log(sizes)), rules.level, null=1.0
            )
            less = directed(power, rules.level, null=1.0, below=True)
            parts.append(
                piece(
                    f"{estimator}: exponent a of λ̂ ~ sizeᵃ, below 1",
                    less,
                    power.value,
                    power.interval,
                    power.below,
                )
            )
    why = f"The gain per doubling changes by {number(effect.value)} from one doubling to the next ({span(effect.interval, rules)})"
    why += {"supported": ": it diminishes.", "not supported": ": it grows."}.get(
        verdict
    ) or f"; {more(bends_G, rules)}."
    return Finding(
        verdict, why + left_out(family), effect.value, effect.interval, effect.below, tuple(parts)
    )


def larger_is_more(evidence: Evidence, rules: Rules) -> Finding | None:
    """C9. The difference of λ̂ between a quantised model and the next smaller one, paired over
    shuffles: supported where its t interval and test say that it is above 0, not supported where
    below. The verdict is that of the two smallest (13B − 7B), other pairs stand beside it.
    """
    family = evidence.quantised
    if family is None:
        return None
    if (finding := few(paired(family, family.llc_GxM, 1), 2)) is not None:
        return finding
    first_G = np.diff(paired(family, family.llc_GxM, 1))[:, 0]
    effect = inference.mean(first_G, rules.level)
    verdict = directed(effect, rules.level)
    parts = []
    for estimator, llc_GxM in family.estimates.items():
        for i in range(1, len(family.models)):
            both = paired(family, llc_GxM, i)
            if few(both, 2) is None:
                found = inference.mean(np.diff(both)[:, 0], rules.level)
                name = f"{family.models[i]} − {family.models[i - 1]}, {estimator}"
                parts.append(
                    piece(
                        name, directed(found, rules.level), found.value, found.interval, found.above
                    )
                )
    why = f"λ̂ of {family.models[1]} minus that of {family.models[0]} is {number(effect.value)} ({span(effect.interval, rules)}; "
    why += f"{probability(effect.above)}, {len(first_G)} shuffles)"
    why += f"; {more(first_G, rules)}." if verdict == "inconclusive" else "."
    return Finding(
        verdict, why + left_out(family), effect.value, effect.interval, effect.above, tuple(parts)
    )


def paired(family: Family, llc_GxM: Array, i: int) -> Array:
    """The shuffles of model `i` and the one before it (shuffle, 2) that have both."""
    both = llc_GxM[:, i - 1 : i + 1]
    return both[np.isfinite(both).all(1)]
