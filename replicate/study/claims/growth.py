"""Claims C1, C2 and C9: how λ̂ changes with model size."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from replicate.estimation import statistics
from replicate.seeds import derive
from replicate.study.claims.base import Claim, Finding, part
from replicate.study.claims.evidence import Array, Evidence, Family
from replicate.study.claims.verdicts import (
    complete,
    directed,
    left_out,
    mean,
    more_shuffles,
    number,
    probability,
    span,
    too_few,
    with_page,
    words,
)
from replicate.study.published import ORIGINAL
from replicate.study.records.verdicts import Part
from replicate.study.rules import Rules


class ChangeWithSize(Claim):
    """A claim on how λ̂ of the full-precision family changes with size.

    Attributes:
        change: takes λ̂ (shuffle, model) and log₂ of the sizes (model,), and returns how λ̂ changes
            with size in each shuffle (shuffle,).
    """

    needs = "λ̂ of the full-precision family"
    sources = (("estimates", "{full}: shuffles"), ("original", "{full}: shuffles"))
    published_source = "families.gpt2.models.*.mean"
    change: ClassVar[Callable[[Array, Array], Array]]

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        family = evidence.full
        if family is None:
            return None
        llc_SxM, sizes_M = complete(family.llc_SxM, family.parameters_M)
        if (finding := too_few(llc_SxM, 3)) is not None:
            return finding
        parts = []
        for estimator, values_SxM in family.estimates.items():
            table = complete(values_SxM, family.parameters_M)
            if too_few(table[0], 3) is None:
                parts += self.parts(estimator, *table, rules)
        chief = parts[0]  # of the estimator that claims are judged by
        why = self.explain(chief, family, llc_SxM, rules)
        if chief.verdict == "inconclusive":
            why += f"; {more_shuffles(type(self).change(llc_SxM, np.log2(sizes_M)), rules)}."
        return Finding(chief, why + left_out(family), parts)

    @abstractmethod
    def parts(self, estimator: str, llc_SxM: Array, sizes_M: Array, rules: Rules) -> list[Part]:
        """Judges λ̂ by one estimator; the first part decides."""

    @abstractmethod
    def explain(self, chief: Part, family: Family, llc_SxM: Array, rules: Rules) -> str:
        """Explains the verdict in a sentence. If the verdict is inconclusive, the sentence has no
        full stop, because `judge` adds what would decide it.
        """


class GrowsWithSize(ChangeWithSize):
    """The claim is supported if Page's test (exact, shuffles as blocks) is significant for a rise
    and the t interval of λ̂ per doubling lies above 0. It is not supported if the test is
    significant for a fall and the interval lies below 0. The bootstrap of the rank correlation, the
    analysis of variance and other estimators are reported and do not decide.
    """

    id = "C1"
    title = "λ̂ grows with model size"
    measure = "λ̂ per doubling of size"
    change = statistics.slopes

    def parts(self, estimator: str, llc_SxM: Array, sizes_M: Array, rules: Rules) -> list[Part]:
        slope = mean(statistics.slopes(llc_SxM, np.log2(sizes_M)), rules)
        ranks_S = statistics.rank_correlations(llc_SxM, sizes_M)
        seed = derive(rules.seed, "claims", "C1", estimator)
        resampled = statistics.bootstrap(ranks_S, rules.level, rules.bootstrap, seed)
        variance = statistics.anova(llc_SxM)
        rank = f"{estimator}: rank correlation with size, bootstrap over shuffles"
        share = f"{estimator}: models' share of the variance, analysis of variance"
        by_page = with_page(slope, llc_SxM)
        return [
            directed(f"{estimator}: λ̂ per doubling, Page's test", by_page, rules.level),
            part(rank, None, float(ranks_S.mean()), resampled),
            part(share, None, variance.columns, None, variance.p),
        ]

    def explain(self, chief: Part, family: Family, llc_SxM: Array, rules: Rules) -> str:
        why = (
            f"λ̂ changes by {number(chief.effect)} per doubling of size "
            f"({span(chief.interval, rules)}; Page's test {probability(chief.p_value)})"
        )
        if chief.verdict != "inconclusive":
            way = "falls" if (chief.effect or 0) < 0 else "grows"
            why += f" in {len(llc_SxM)} shuffles of {llc_SxM.shape[1]} models: it {way}."
        elif chief.p_value is not None and chief.p_value < rules.level:
            # the order can be significant when the differences are not
            shared = ", where the models share the baseline minibatch,"
            why += (
                ". Page's test uses only the order within a shuffle"
                f"{shared if family.estimator == ORIGINAL else ''} and that follows size; but the "
                "differences are not large against their scatter over shuffles (analysis of "
                f"variance {probability(statistics.anova(llc_SxM).p)})"
            )
        return why


class Diminishes(ChangeWithSize):
    """The second difference of λ̂ over a doubling is fitted in each shuffle (least squares over all
    models). The claim is supported if its t interval and t test say that it is below 0, and not
    supported if they say that it is above. If all λ̂ are above 0, the exponent of λ̂ ~ sizeᵃ is
    compared with 1 and does not decide.
    """

    id = "C2"
    title = "The gain of λ̂ per doubling of size diminishes"
    measure = "change of that gain from one doubling to the next"
    change = statistics.curvatures

    def parts(self, estimator: str, llc_SxM: Array, sizes_M: Array, rules: Rules) -> list[Part]:
        bend = mean(statistics.curvatures(llc_SxM, np.log2(sizes_M)), rules)
        found = [directed(f"{estimator}: change of the gain", bend, rules.level, below=True)]
        if (llc_SxM > 0).all():
            powers_S = statistics.slopes(np.log(llc_SxM), np.log(sizes_M))
            power = statistics.mean(powers_S, rules.level, null=1.0)
            name = f"{estimator}: exponent a of λ̂ ~ sizeᵃ, below 1"
            found.append(directed(name, power, rules.level, null=1.0, below=True))
        return found

    def explain(self, chief: Part, family: Family, llc_SxM: Array, rules: Rules) -> str:
        ending = words(chief.verdict, supported=": it diminishes.", against=": it grows.")
        return (
            f"The gain per doubling changes by {number(chief.effect)} from one doubling to the "
            f"next ({span(chief.interval, rules)}){ending}"
        )


class LargerHasMore(Claim):
    """The difference of λ̂ between a quantised model and the next smaller one is paired over
    shuffles. The claim is supported if its t interval and t test say that it is above 0, and not
    supported if they say that it is below. The two smallest models (13B − 7B) decide; other pairs
    are only reported.
    """

    id = "C9"
    title = "Of the quantised models the larger has the greater λ̂ (Llama-2-13B over 7B)"
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
                    parts.append(directed(name, mean(np.diff(pair_Sx2)[:, 0], rules), rules.level))
        chief = parts[0]
        why = (
            f"λ̂ of {models[1]} minus that of {models[0]} is {number(chief.effect)} "
            f"({span(chief.interval, rules)}; {probability(chief.p_value)}, "
            f"{len(both_Sx2)} shuffles)"
        )
        if chief.verdict == "inconclusive":
            why += f"; {more_shuffles(np.diff(both_Sx2)[:, 0], rules)}"
        return Finding(chief, f"{why}.{left_out(family)}", parts)


def _paired(llc_SxM: Array, i: int) -> Array:
    """Returns λ̂ of models `i` − 1 and `i` (shuffle, 2) in the shuffles that have both."""
    both = llc_SxM[:, i - 1 : i + 1]
    return both[np.isfinite(both).all(1)]
