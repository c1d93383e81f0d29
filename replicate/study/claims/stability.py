"""Claims C6, C7 and C8: how stable λ̂ of one model is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from replicate.estimation import statistics
from replicate.study.claims.base import Claim, Finding, inconclusive, part
from replicate.study.claims.evidence import Evidence
from replicate.study.claims.trainings import tables
from replicate.study.claims.verdicts import (
    deciding,
    directed,
    equivalent,
    known,
    mean,
    not_run,
    number,
    span,
    together,
    words,
)
from replicate.study.published import ORIGINAL
from replicate.study.records import Estimate, Transferred
from replicate.study.records.verdicts import Part, Verdict
from replicate.study.rules import Rules


class ClippingChangesNothing(Claim):
    """A model supports the claim if no chain diverged and the t interval (over shuffles) of the
    relative change of λ̂ by clipping lies within ± `negligible`. It speaks against the claim if a
    chain diverged or the interval lies outside. The claim is supported if all models support it,
    and not supported if one speaks against it.
    """

    id = "C6"
    title = "At the chosen hyperparameters no loss explodes: clipping changes nothing"
    measure = "relative change of λ̂ by clipping"
    needs = "chains at the chosen hyperparameters, clipped and unclipped"
    sources = (("estimates", "controlled: clipped"),)
    published_source = "families.*.models.*.mean"

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        if evidence.published is not None:
            why = "Only clipped estimates were published; the same chains without clipping would "
            return inconclusive(f"{why}decide it.")
        if not evidence.estimates:
            return None
        exploded = [name for name, row in evidence.estimates.items() if None in row.clipped]
        parts = []
        for name, row in evidence.estimates.items():
            change = mean(row.clipped, rules)
            verdict = equivalent(change.interval, rules.negligible)
            verdict = "not supported" if name in exploded else verdict
            parts.append(part(name, verdict, change.value, change.interval))
        chief = deciding(parts)
        why = f"Clipping changes λ̂ of {chief.name} by " + _negligible(
            chief,
            rules,
            reason="no chain diverged",
            remedy="λ̂ against a less noisy baseline, or more shuffles",
        )
        if exploded:
            why = f"Losses exploded: chains of {', '.join(exploded)} diverged."
        return Finding(chief, why + not_run(evidence.missing), parts)


def _negligible(chief: Part, rules: Rules, reason: str, remedy: str) -> str:
    """Writes a relative change of λ̂, and whether it is negligible.

    Args:
        chief: the model with the greatest change.
        rules: the margin.
        reason: what else holds if the claim is supported, such as that no chain diverged.
        remedy: what would decide the claim if it is inconclusive.
    """
    margin = f"± {rules.negligible:.0%}"
    ending = words(
        chief.verdict,
        supported=f"the most of all models and within {margin}; {reason}.",
        against=f"beyond {margin}.",
        undecided=f"which leaves open whether it is within {margin}; {remedy}, would decide it.",
    )
    return f"{number(chief.effect)} of itself ({span(chief.interval, rules)}), {ending}"


class StableOverShuffles(Claim):
    """A model supports the claim if the χ² test and the χ² interval say that the coefficient of
    variation of λ̂ over shuffles is below `stable`. It speaks against the claim if they say that the
    coefficient is above. The claim is supported if all models support it, and not supported if one
    speaks against it. The write-up's estimator on its own protocol decides; the other estimators
    and the components of variance (training, shuffle, chain, draw) are only reported.
    """

    id = "C7"
    title = "The estimate is stable across shuffles"
    measure = "coefficient of variation over shuffles"
    needs = "chains of the original protocol"
    sources = (
        ("original", "shuffles, deviations"),
        ("estimates", "shuffles"),
        ("traces", "chain_llc"),
    )
    published_source = "families.*.models.*.mean, deviation"

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        own, beside = [], []
        for family in evidence.families:
            for estimator, llc_SxM in family.estimates.items():
                for model, llc_S in zip(family.models, llc_SxM.T, strict=True):
                    if len(known(llc_S)) < 2:
                        continue
                    name = f"{model}, {estimator}"
                    effect = statistics.variation(known(llc_S), rules.level, rules.stable)
                    judged = directed(name, effect, rules.level, rules.stable, below=True)
                    (own if estimator == ORIGINAL else beside).append(judged)
        if not own:
            return None
        chief = deciding(own)
        model, limit = chief.name.split(",")[0], f"{rules.stable:g}"
        ending = words(
            chief.verdict,
            supported=f"the most of all models and less than {limit}.",
            against=f"more than {limit}.",
            undecided=f"which leaves open whether it is below {limit}; more shuffles would decide "
            "it.",
        )
        why = (
            f"By the write-up's estimator the coefficient of variation of {model}'s λ̂ over "
            f"shuffles is {number(chief.effect)} ({span(chief.interval, rules)}), {ending}"
        )
        shares = (*_of_trainings(evidence, rules), *evidence.shares)
        return Finding(chief, why + not_run(evidence.missing), (*own, *beside, *shares))


def _of_trainings(evidence: Evidence, rules: Rules) -> Iterator[Part]:
    """Yields the share of trainings in the variance of ln λ̂ within a size, at each setting."""
    for family in dict.fromkeys((evidence.full_name, evidence.quantised_name)):
        for table in tables(evidence.settings, family, rules)[0]:
            layout = table.layout()
            if table.rows and np.isfinite(layout.freedom):
                share = layout.between / float(layout.variances_N[0])
                title = f"{family}, {table.name}: trainings' share of the variance of ln λ̂"
                yield part(title, None, share)


class CarriesOver(Claim):
    """A model supports the claim if its chains at the chosen step size are healthy (R-hat, drift,
    none diverged) and the t interval of λ̂(smallest factor)/λ̂(1) − 1, paired over shuffles, lies
    within ± `negligible`. It speaks against the claim if the chains are not healthy or the interval
    lies outside. The claim is supported if all models support it, and not supported if one speaks
    against it. The other factors are only reported.
    """

    id = "C8"
    title = "The hyperparameters carry over to every size"
    measure = "relative change of λ̂ at a smaller step size than the chosen one"
    needs = "chains of every model at multiples of the chosen step size"
    sources = (
        ("transfer", "shuffles"),
        ("estimates", "controlled: rhat, drift_p, diverged_chains"),
    )
    published_source = "families.*.models.*.mean"

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        if evidence.published is not None:
            return inconclusive(
                "One step size served all models of a family, and nothing was published on the "
                "health of their chains; chains at a third of it, on every model, would decide it."
            )
        chosen = {row.model: row for row in evidence.transfer if row.factor == 1.0}
        if not chosen:
            return None
        parts, beside, unhealthy = [], [], []
        for model, one in chosen.items():
            # the chains of the main estimate have the same sampler and are longer
            chains = evidence.estimates.get(model, one)
            health = _health(chains, rules)
            if health == "not supported":
                unhealthy.append(model)
            title = f"{model}: R-hat at ×1, and p of the drift"
            beside.append(part(title, health, chains.rhat, None, chains.drift_p))
            rows = [row for row in evidence.transfer if row.model == model and row.factor != 1.0]
            smallest = min((row.factor for row in rows), default=1.0)
            for row in sorted(rows, key=lambda row: row.factor):
                if row.factor == smallest < 1:
                    parts.append(_change(row, one, rules, health))
                else:
                    beside.append(_change(row, one, rules))
        if not parts:
            why = "No step size below the chosen one was tried; one would decide it."
            return inconclusive(why, beside)
        chief = deciding(parts)
        why = f"At a smaller step size λ̂ of {chief.name.split(':')[0]} changes by " + _negligible(
            chief,
            rules,
            reason="at the chosen one all chains are healthy",
            remedy="more shuffles, or longer chains",
        )
        if unhealthy and chief.verdict == "not supported":
            why = f"Chains are not healthy at the chosen step size: {', '.join(unhealthy)}."
        return Finding(chief, why + not_run(evidence.transfer_missing), (*parts, *beside))


def _change(
    row: Transferred, one: Transferred, rules: Rules, health: Verdict | None = None
) -> Part:
    """Returns the relative change of λ̂ from the chosen step size, paired over shuffles. The change
    is judged only if `health`, the verdict on the chains at the chosen step size, is given.
    """
    change = mean(np.array(row.shuffles, float) / np.array(one.shuffles, float) - 1, rules)
    verdict = None
    if health is not None:
        verdict = together([equivalent(change.interval, rules.negligible), health])
    name = f"{row.model}: λ̂ at ×{row.factor:.2g} over ×1, minus 1"
    return part(name, verdict, change.value, change.interval)


def _health(chains: Transferred | Estimate, rules: Rules) -> Verdict:
    """Judges whether chains are healthy."""
    if chains.diverged_chains:
        return "not supported"
    if chains.rhat is None or chains.drift_p is None:
        return "inconclusive"
    healthy = chains.rhat < rules.rhat and chains.drift_p >= rules.drift
    return "supported" if healthy else "not supported"
