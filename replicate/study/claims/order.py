"""Claim R3: whether the order of sizes depends on the setting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from replicate.seeds import derive
from replicate.study.claims.base import Claim, Finding, not_decided, part
from replicate.study.claims.evidence import Evidence
from replicate.study.claims.trainings import Table, log_llc, paired_slope, tables
from replicate.study.claims.units import CHECKPOINTS, TRAININGS, over_trainings
from replicate.study.claims.verdicts import number, span
from replicate.study.records.verdicts import Part, Verdict
from replicate.study.rules import Rules


class SameOrder(Claim):
    """The exponent a of λ̂ ∝ dᵃ is the least-squares slope of ln λ̂ on ln d over trainings, with the
    pooled variance within sizes. At each setting, and at a fixed radius (γ ∝ d), the order of the
    sizes' mean ln λ̂ is drawn again from that variance (the Monte-Carlo errors, if each size has one
    training). The claim is supported if one order has a share of `order` or more of the draws at
    all settings, at `settings` of them at least, and at a fixed radius. It is not supported if at
    two of these settings different orders have such a share. Only the loss of `setting` counts.
    """

    id = "R3"
    title = "The order of sizes does not depend on the setting"
    measure = "exponent a of λ̂ ∝ dᵃ"
    needs = "λ̂ of two sizes at several settings"
    sources = TRAININGS
    published_source = "families.*.models.*.mean"

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        if evidence.published is not None:
            return not_decided(
                "λ̂ of each size was published at one setting, and of one training of each."
            )
        found, several = tables(evidence.settings, evidence.full_name, rules)
        chosen = [t for t in found if t.loss == rules.trainings.setting.loss] or found
        whole = [table for table in chosen if table.whole and table.different > 1]
        if not whole:
            return None
        main = next((t for t in whole if t.at(rules.trainings.setting)), whole[0])
        whole = [main, *(table for table in whole if table is not main)]
        exponents = [exponent(table, rules) for table in whole]
        orders = [_order(table, rules) for table in whole]
        verdict, ending = self.decide(whole, orders, len(chosen), rules)
        shares = [
            part(f"{table.name}: share of {' < '.join(order)}", None, share)
            for table, (order, share) in zip(whole, orders, strict=True)
        ]
        changes = [_change(table, main, rules) for table in whole[1:]]
        chief, why = exponents[0], self.tell(whole, exponents, rules)
        start = "" if several else CHECKPOINTS
        why = f"{start}{why} {ending}{''.join(table.omitted for table in chosen)}"
        judged = part("", verdict, chief.effect, chief.interval)
        measure = f"{self.measure} at {main.name}"
        return Finding(judged, why, [*exponents, *filter(None, changes), *shares], measure)

    def decide(
        self,
        whole: Sequence[Table],
        orders: Sequence[tuple[tuple[str, ...], float]],
        planned: int,
        rules: Rules,
    ) -> tuple[Verdict, str]:
        """Returns the verdict, and the sentence that explains it."""
        limit = rules.trainings.order
        every = zip(whole, orders, strict=True)
        sure = {table.name: order for table, (order, share) in every if share >= limit}
        fixed = sum(table.localization is not None for table in whole)
        kinds = dict.fromkeys(sure.values())
        if len(kinds) > 1:
            told = "; ".join(f"{' < '.join(order)} at {name}" for name, order in sure.items())
            return "not supported", f"The order changes: {told}."
        lacking = []
        if fixed < rules.trainings.settings:
            lacking.append(f"{rules.trainings.settings} settings with one γ (there are {fixed})")
        if fixed == len(whole):
            lacking.append("a fixed radius, γ ∝ d, which was not run")
        if len(sure) < len(whole) or len(whole) < planned:
            lacking.append(f"a clear order at {planned - len(sure)} of {planned} settings")
        if lacking:
            return "inconclusive", f"It takes {', and '.join(lacking)}, to decide it."
        return "supported", f"The order {' < '.join(next(iter(kinds)))} is the same at all of them."

    def tell(self, whole: Sequence[Table], exponents: Sequence[Part], rules: Rules) -> str:
        """Tells a at the setting of the rules, over all settings and at a fixed radius."""
        main, chief = whole[0], exponents[0]
        every = list(zip(whole, exponents, strict=True))
        fixed = [e.effect for t, e in every if t.localization is not None and e.effect is not None]
        radius = [
            f"{number(e.effect)} ({span(e.interval, rules)}) at {t.name}"
            for t, e in every
            if t.localization is None
        ]
        return (
            f"At {main.name}, where {main.measured}, λ̂ ∝ dᵃ with a = {number(chief.effect)} "
            f"({span(chief.interval, rules)} {over_trainings(main, rules)}); over "
            f"{len(fixed)} settings a is {number(min(fixed))} to {number(max(fixed))}, and at a "
            f"fixed radius (γ ∝ d) {' and '.join(radius) or 'it was not run'}."
        )


def exponent(table: Table, rules: Rules) -> Part:
    """Returns a of λ̂ ∝ dᵃ at one setting, with its t interval over trainings."""
    slope = table.layout().slope(table.log_sizes_N, rules.level)
    return part(f"{table.name}: exponent a of λ̂ ∝ dᵃ", None, slope.value, slope.interval)


def _order(table: Table, rules: Rules) -> tuple[tuple[str, ...], float]:
    """Returns the most frequent order of the sizes, by ascending λ̂, and its share of the draws."""
    seed = derive(rules.seed, "claims", "R3", table.name)
    means_RxK, _ = table.layout().resample(rules.bootstrap, seed)
    counts = Counter(map(tuple, np.argsort(means_RxK, axis=1).tolist()))
    order, count = counts.most_common(1)[0]
    return tuple(table.sizes[k] for k in order), count / rules.bootstrap


def _change(table: Table, main: Table, rules: Rules) -> Part | None:
    """Returns the change of the exponent from the main setting, paired over trainings."""
    change = paired_slope(table, main, log_llc, rules)
    if change is None:
        return None
    name = f"{table.name} minus {main.name}: exponent a, paired"
    return part(name, None, change.value, change.interval)
