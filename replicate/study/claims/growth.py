"""Claims C1 and C2: how λ̂ changes with model size.

Where every size was trained several times, they are judged on ln λ̂ of trainings. Otherwise blocks
are shuffles, and the verdict is about these checkpoints alone.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from replicate.estimation import statistics
from replicate.estimation.layouts import jonckheere
from replicate.seeds import derive
from replicate.study.claims.base import Claim, Finding, inconclusive, part
from replicate.study.claims.evidence import Array, Evidence, Family
from replicate.study.claims.trainings import Table, tables
from replicate.study.claims.units import (
    TRAININGS,
    at_setting,
    checkpoints,
    over_trainings,
    repeated,
)
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
        trained_measure: what the effect is if trainings are judged.
        least: the number of sizes that a verdict on trainings needs.
    """

    needs = "λ̂ of the full-precision family"
    sources = (("estimates", "{full}: shuffles"), ("original", "{full}: shuffles"))
    published_source = "families.gpt2.models.*.mean"
    change: ClassVar[Callable[[Array, Array], Array]]
    trained_measure: ClassVar[str]
    least: ClassVar[int]

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        found, several = tables(evidence.settings, evidence.full_name, rules)
        if several:
            return self.of_trainings(found, rules)
        if evidence.full is None or repeated(evidence.full):
            return None
        family, start, lost = checkpoints(evidence.full, evidence)
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
        return Finding(chief, start + why + left_out(family) + lost, parts)

    def of_trainings(self, found: Sequence[Table], rules: Rules) -> Finding:
        """Judges λ̂ of trainings. The setting of the rules decides, and others are reported."""
        main = at_setting(found, rules.trainings.setting)
        if isinstance(main, Finding):
            return main
        if main.different < self.least:
            return inconclusive(f"{self.least} sizes at least would decide it.{main.omitted}")
        others = [table for table in found if table is not main and table.whole]
        parts = [each for table in (main, *others) for each in self.trained(table, rules)]
        chief = parts[0]
        ending = {"inconclusive": "; more trainings would decide it."}
        why = f"At {main.name}, where {main.measured}, {self.tell(chief, main, rules)}"
        why += ending.get(str(chief.verdict), ".") + main.omitted
        return Finding(chief, why, parts, self.trained_measure, TRAININGS)

    @abstractmethod
    def trained(self, table: Table, rules: Rules) -> list[Part]:
        """Judges λ̂ of trainings at one setting; the first part decides."""

    @abstractmethod
    def tell(self, chief: Part, table: Table, rules: Rules) -> str:
        """Tells the effect over trainings, without a full stop."""

    @abstractmethod
    def parts(self, estimator: str, llc_SxM: Array, sizes_M: Array, rules: Rules) -> list[Part]:
        """Judges λ̂ by one estimator; the first part decides."""

    @abstractmethod
    def explain(self, chief: Part, family: Family, llc_SxM: Array, rules: Rules) -> str:
        """Explains the verdict in a sentence. If the verdict is inconclusive, the sentence has no
        full stop, because `judge` adds what would decide it.
        """


class GrowsWithSize(ChangeWithSize):
    """If every size was trained several times, the claim is supported if the Jonckheere–Terpstra
    test (exact) is significant for a rise of λ̂ from size to size over trainings and the t interval
    of the exponent of λ̂ ∝ dᵃ, with the pooled variance within sizes, lies above 0; it is not
    supported if the test is significant for a fall and the interval lies below 0. Otherwise Page's
    test (exact, shuffles as blocks) and the t interval of λ̂ per doubling decide in the same way,
    and the verdict is about these checkpoints. The bootstrap of the rank correlation, the analysis
    of variance, other settings and other estimators are reported and do not decide.
    """

    id = "C1"
    title = "λ̂ grows with model size"
    measure = "λ̂ per doubling of size"
    change = statistics.slopes
    trained_measure = "exponent a of λ̂ ∝ dᵃ over trainings"
    least = 2

    def trained(self, table: Table, rules: Rules) -> list[Part]:
        found = table.layout()
        rises, falls = jonckheere(found.values_N, found.group_N)
        slope = replace(found.slope(table.log_sizes_N, rules.level), above=rises, below=falls)
        name = f"{table.name}: exponent a of λ̂ ∝ dᵃ, Jonckheere–Terpstra"
        return [directed(name, slope, rules.level)]

    def tell(self, chief: Part, table: Table, rules: Rules) -> str:
        ending = words(chief.verdict, supported=": it grows", against=": it falls")
        rises, falls = jonckheere(table.layout().values_N, table.layout().group_N)
        way, p = ("a fall", falls) if falls < rises else ("a rise", rises)
        return (
            f"λ̂ ∝ dᵃ with a = {number(chief.effect)} ({span(chief.interval, rules)} "
            f"{over_trainings(table, rules)}; Jonckheere–Terpstra, {way}: {probability(p)}){ending}"
        )

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
    """The second difference over a doubling is fitted by least squares over all sizes: of ln λ̂ over
    trainings, with the pooled variance within sizes, if every size was trained several times;
    otherwise of λ̂ in each shuffle, and the verdict is about these checkpoints. The claim is
    supported if its t interval and t test say that it is below 0, and not supported if they say
    that it is above. That of λ̂ over trainings, other settings, and the exponent of λ̂ ~ sizeᵃ
    against 1 are reported and do not decide.
    """

    id = "C2"
    title = "The gain of λ̂ per doubling of size diminishes"
    measure = "change of that gain from one doubling to the next"
    change = statistics.curvatures
    trained_measure = "change of the gain of ln λ̂ from one doubling to the next, over trainings"
    least = 3

    def trained(self, table: Table, rules: Rules) -> list[Part]:
        doublings_N = table.log_sizes_N / np.log(2)
        bend = table.layout().curvature(doublings_N, rules.level)
        raw = table.layout(lambda row: (row.llc or 0.0, row.standard_error or 0.0))
        plain = raw.curvature(doublings_N, rules.level)
        name = f"{table.name}: change of the gain of "
        return [
            directed(f"{name}ln λ̂", bend, rules.level, below=True),
            part(f"{name}λ̂", None, plain.value, plain.interval),
        ]

    def tell(self, chief: Part, table: Table, rules: Rules) -> str:
        ending = words(chief.verdict, supported=": it diminishes", against=": it grows")
        return (
            f"the gain of ln λ̂ per doubling changes by {number(chief.effect)} from one doubling "
            f"to the next ({span(chief.interval, rules)} {over_trainings(table, rules)}){ending}"
        )

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
