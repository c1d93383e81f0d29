"""Claims C6, C7 and C8: how stable λ̂ of one model is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from replicate.estimation import statistics
from replicate.estimation.statistics import Effect
from replicate.study.claims.base import Claim, Finding
from replicate.study.claims.evidence import ORIGINAL, Evidence, Rules, Spread
from replicate.study.claims.verdicts import (
    deciding,
    directed_part,
    equivalent,
    names_not_run,
    not_run,
    number,
    part,
    span,
    together,
    words,
)
from replicate.study.records import Part, Transferred, Verdict


class ClippingChangesNothing(Claim):
    id = "C6"
    title = "At the chosen hyperparameters no loss explodes: clipping changes nothing"
    rule = (
        "Of each model: supported where the t interval of the relative change of λ̂ by clipping, "
        "over shuffles, is within ± `negligible` and no chain diverged; not supported where it is "
        "outside, or a chain diverged. For all models together."
    )
    measure = "relative change of λ̂ by clipping"
    needs = "chains at the chosen hyperparameters, clipped and unclipped"
    sources = (("estimates", "controlled: clipped"),)
    published_source = "families.*.models.*.mean"

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        if evidence.published is not None:
            why = "Only clipped estimates were published; the same chains without clipping would "
            return Finding("inconclusive", f"{why}decide it.")
        if not evidence.clipping:
            return None
        parts, exploded = [], []
        for name, change_S in evidence.clipping.items():
            known_S = change_S[np.isfinite(change_S)]
            effect = statistics.mean(known_S, rules.level) if len(known_S) else None
            interval = effect.interval if effect else None
            verdict = equivalent(interval, rules.negligible)
            if len(known_S) < len(change_S):
                exploded.append(name)
                verdict = "not supported"
            parts.append(part(name, verdict, effect.value if effect else None, interval))
        chief, margin = deciding(parts), f"± {rules.negligible:.0%}"
        change = f"{number(chief.effect)} of itself ({span(chief.interval, rules)})"
        why = f"Clipping changes λ̂ of {chief.name} by {change}, "
        why += words(
            chief.verdict,
            supported=f"the most of all models and within {margin}; no chain diverged.",
            against=f"beyond {margin}.",
            undecided=f"which leaves open whether it is within {margin}; λ̂ against a less noisy "
            "baseline, or more shuffles, would decide it.",
        )
        if exploded:
            why = f"Losses exploded: chains of {', '.join(exploded)} diverged."
        return Finding.on(chief, why + not_run(*evidence.families), parts)


class StableOverShuffles(Claim):
    id = "C7"
    title = "The estimate is stable across shuffles"
    rule = (
        "Coefficient of variation of λ̂ over shuffles, of each model: supported where the χ² test "
        "and the upper end of the χ² interval say that it is below `stable`, not supported where "
        "test and lower end say above. The verdict is that of the write-up's estimator on its own "
        "protocol, for all models together; the other estimators, and the components of variance, "
        "stand beside it."
    )
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
                for name, llc_S in zip(family.models, llc_SxM.T, strict=True):
                    known_S = llc_S[np.isfinite(llc_S)]
                    if len(known_S) < 2:
                        continue
                    effect = statistics.variation(known_S, rules.level, rules.stable)
                    judged = directed_part(
                        f"{name}, {estimator}", effect, rules.level, null=rules.stable, below=True
                    )
                    (own if estimator == ORIGINAL else beside).append(judged)
        if not own:
            return None
        beside += [_components(name, spread) for name, spread in evidence.spreads.items()]
        chief = deciding(own)
        model, limit = chief.name.split(",")[0], f"{rules.stable:g}"
        why = (
            f"By the write-up's estimator the coefficient of variation of {model}'s λ̂ over "
            f"shuffles is {number(chief.effect)} ({span(chief.interval, rules)}), "
        )
        why += words(
            chief.verdict,
            supported=f"the most of all models and less than {limit}.",
            against=f"more than {limit}.",
            undecided=f"which leaves open whether it is below {limit}; more shuffles would decide "
            "it.",
        )
        return Finding.on(chief, why + not_run(*evidence.families), (*own, *beside))


def _components(name: str, spread: Spread) -> Part:
    """Returns the shuffles' share of the variance; the part's name gives the other shares."""
    shuffle, chain, draw = statistics.components(
        spread.llc_S, spread.within, spread.chains, spread.draws or 0.0
    )
    rest = f"chains {chain:.0%}, draws {draw:.0%}"
    if spread.draws is None:
        rest = f"chains and draws {chain:.0%}"
    title = f"{name}: shuffles' share of the variance of one chain's λ̂ ({rest})"
    return part(title, None, shuffle)


class CarriesOver(Claim):
    id = "C8"
    title = "The hyperparameters carry over to every size"
    rule = (
        "Of each model: supported where its chains are healthy at the chosen step size (R-hat, "
        "drift, none diverged) and the t interval of λ̂(smallest factor)/λ̂(1) − 1, paired over "
        "shuffles, is within ± `negligible`; not supported where they are not healthy or the "
        "interval lies outside. For all models together; larger factors stand beside it."
    )
    measure = "relative change of λ̂ at a smaller step size than the chosen one"
    needs = "chains of every model at multiples of the chosen step size"
    sources = (
        ("transfer", "shuffles"),
        ("estimates", "controlled: rhat, drift_p, diverged_chains"),
    )
    published_source = "families.*.models.*.mean"

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        if evidence.published is not None:
            why = (
                "One step size served all models of a family, and nothing was published on the "
                "health of their chains; chains at a third of it, on every model, would decide it."
            )
            return Finding("inconclusive", why)
        chosen = {row.model: row for row in evidence.transfer if row.factor == 1.0}
        if not chosen:
            return None
        parts, beside, sick = [], [], []
        for model, one in chosen.items():
            health = _health(one, rules)
            if health == "not supported":
                sick.append(model)
            title = f"{model}: R-hat at ×1, and p of the drift"
            beside.append(part(title, health, one.rhat, None, one.drift_p))
            rows = [row for row in evidence.transfer if row.model == model and row.factor != 1.0]
            smallest = min((row.factor for row in rows), default=1.0)
            for row in sorted(rows, key=lambda row: row.factor):
                if row.factor == smallest < 1:
                    parts.append(_change(row, one, rules, health))
                else:
                    beside.append(_change(row, one, rules, None))
        if not parts:
            why = "No step size below the chosen one was tried; one would decide it."
            return Finding("inconclusive", why, parts=beside)
        chief = deciding(parts)
        why = _sentence(chief, sick, rules) + names_not_run(evidence.transfer_missing)
        return Finding.on(chief, why, (*parts, *beside))


def _sentence(chief: Part, sick: Sequence[str], rules: Rules) -> str:
    """Explains the verdict on C8 in a sentence."""
    if chief.verdict == "not supported" and sick:
        return f"Chains are not healthy at the chosen step size: {', '.join(sick)}."
    margin, model = f"± {rules.negligible:.0%}", chief.name.split(":")[0]
    change = f"{number(chief.effect)} of itself ({span(chief.interval, rules)})"
    ending = words(
        chief.verdict,
        supported=f"the most of all models and within {margin}; at the chosen one all chains are "
        "healthy.",
        against=f"beyond {margin}.",
        undecided=f"which leaves open whether it is within {margin}; more shuffles, or longer "
        "chains, would decide it.",
    )
    return f"At a smaller step size λ̂ of {model} changes by {change}, {ending}"


def _change(row: Transferred, one: Transferred, rules: Rules, health: Verdict | None) -> Part:
    """Returns the relative change of λ̂ from the chosen step size, paired over shuffles. It is
    judged only if `health`, the verdict on the chains at the chosen step size, is given.
    """
    pairs = zip(row.shuffles, one.shuffles, strict=True)
    change_S = np.array([a / b - 1 for a, b in pairs if a is not None and b])
    change = Effect(0.0, None, None, None)
    if len(change_S):
        change = statistics.mean(change_S, rules.level)
    verdict = None
    if health is not None:
        verdict = together([equivalent(change.interval, rules.negligible), health])
    name = f"{row.model}: λ̂ at ×{row.factor:.2g} over ×1, minus 1"
    return part(name, verdict, change.value if len(change_S) else None, change.interval)


def _health(row: Transferred, rules: Rules) -> Verdict:
    """Judges whether the chains at a step size are healthy."""
    if row.diverged_chains:
        return "not supported"
    if row.rhat is None or row.drift_p is None:
        return "inconclusive"
    return "supported" if row.rhat < rules.rhat and row.drift_p >= rules.drift else "not supported"
