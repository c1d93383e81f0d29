"""C6, C7: whether λ̂ of one model holds still."""

from __future__ import annotations

import numpy as np

from replicate.estimation import statistics as inference
from replicate.study.claims.evidence import ORIGINAL, Evidence, Rules
from replicate.study.claims.verdicts import (
    Finding,
    deciding,
    directed,
    equivalent,
    not_run,
    number,
    piece,
    span,
    together,
)
from replicate.study.records import Verdict


def clipping_idle(evidence: Evidence, rules: Rules) -> Finding | None:
    """C6. Of each model: supported where the t interval of the relative change of λ̂ by clipping,
    over shuffles, is within ± `negligible` and no chain failed; not supported where it is outside,
    or a chain failed. For all models together.
    """
    if not evidence.clipping:
        return None
    parts, exploded = [], []
    for name, change_G in evidence.clipping.items():
        alive_G = change_G[np.isfinite(change_G)]
        effect = inference.mean(alive_G, rules.level) if len(alive_G) else None
        interval = effect.interval if effect else None
        verdict: Verdict = equivalent(interval, rules.negligible)
        if len(alive_G) < len(change_G):
            exploded.append(name)
            verdict = "not supported"
        parts.append(piece(name, verdict, effect.value if effect else None, interval))
    verdict = together([part.verdict for part in parts])
    chief, margin = deciding(parts, verdict), f"± {rules.negligible:.0%}"
    why = f"Clipping changes λ̂ of {chief.name} by {number(chief.effect)} of itself ({span(chief.interval, rules)})"
    if verdict == "supported":
        why += f", the most of all models and within {margin}; no chain failed."
    elif verdict == "inconclusive":
        why += f", which leaves open whether it is within {margin}; λ̂ against a less noisy baseline, or more shuffles, would decide it."
    else:
        why = (
            f"Losses exploded: chains of {', '.join(exploded)} failed."
            if exploded
            else f"{why}, beyond {margin}."
        )
    return Finding(
        verdict, why + not_run(*evidence.families), chief.effect, chief.interval, None, tuple(parts)
    )


def stable(evidence: Evidence, rules: Rules) -> Finding | None:
    """C7. Coefficient of variation of λ̂ over shuffles, of each model: supported where the χ² test
    and the upper end of the χ² interval say that it is below `stable`, not supported where test and
    lower end say above. The verdict is that of the write-up's estimator on its own protocol, for
    all models together; the other estimators, and the components of variance, stand beside it.
    """
    own, beside = [], []
    for family in evidence.families:
        for estimator, llc_GxM in family.estimates.items():
            for name, llc_G in zip(family.models, llc_GxM.T, strict=True):
                alive_G = llc_G[np.isfinite(llc_G)]
                if len(alive_G) < 2:
                    continue
                effect = inference.variation(alive_G, rules.level, rules.stable)
                verdict = directed(effect, rules.level, null=rules.stable, below=True)
                judged = piece(
                    f"{name}, {estimator}", verdict, effect.value, effect.interval, effect.below
                )
                (own if estimator == ORIGINAL else beside).append(judged)
    for name, spread in evidence.spreads.items():
        shuffle, chain, draw = inference.components(
            spread.groups_G, spread.within, spread.chains, spread.draws or 0.0
        )
        rest = (
            f"chains and draws {chain:.0%}"
            if spread.draws is None
            else f"chains {chain:.0%}, draws {draw:.0%}"
        )
        beside.append(
            piece(
                f"{name}: shuffles' share of the variance of one chain's λ̂ ({rest})", None, shuffle
            )
        )
    if not own:
        return None
    verdict = together([part.verdict for part in own])
    chief = deciding(own, verdict)
    why = f"By the write-up's estimator the coefficient of variation of {chief.name.split(',')[0]}'s λ̂ over shuffles is "
    why += f"{number(chief.effect)} ({span(chief.interval, rules)})"
    why += {
        "supported": f", the most of all models and less than {rules.stable:g}.",
        "not supported": f", more than {rules.stable:g}.",
    }.get(
        verdict
    ) or f", which leaves open whether it is below {rules.stable:g}; more shuffles would decide it."
    return Finding(
        verdict,
        why + not_run(*evidence.families),
        chief.effect,
        chief.interval,
        chief.p_value,
        (*own, *beside),
    )
