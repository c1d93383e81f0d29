"""A1, A2: what the write-up takes for granted."""

from __future__ import annotations

import numpy as np
from scipy import stats

from replicate.estimation import statistics as inference
from replicate.study.claims.evidence import Array, Evidence, Rules
from replicate.study.claims.verdicts import Finding, deciding, not_run, piece, together
from replicate.study.records import Part, Verdict


def at_a_minimum(evidence: Evidence, rules: Rules) -> Finding | None:
    """A1. Of each model: supported where the upper end of the fall of its held-out loss is not
    above `descent` and no shuffle has λ̂ ≤ 0; not supported where the lower end is above, or the t
    interval of λ̂ lies below 0. For all models together.
    """
    if not evidence.families:
        return None
    parts, beside, counted = [], [], []
    for family in evidence.families:
        counted.append(
            f"{int((family.llc_GxM <= 0).sum())} of {int(np.isfinite(family.llc_GxM).sum())} λ̂ of {family.name} are ≤ 0"
        )
        for name, llc_G in zip(family.models, family.llc_GxM.T, strict=True):
            alive_G = llc_G[np.isfinite(llc_G)]
            parts.append(lowest(name, alive_G, evidence.descents.get(name), rules))
            if len(alive_G):
                beside.append(piece(f"{name}: share of λ̂ ≤ 0", None, float(np.mean(alive_G <= 0))))
            if name in evidence.gradients:
                beside.append(
                    piece(f"{name}: squared gradient norm", None, evidence.gradients[name])
                )
    verdict = together([part.verdict for part in parts])
    chief, counts = deciding(parts, verdict), "; ".join(counted)
    margin, names = (
        f"{rules.descent:g} nats",
        ", ".join(part.name.split(":")[0] for part in parts if part.verdict == verdict),
    )
    if not evidence.descents and verdict == "inconclusive":
        why = f"{counts}, but each was taken against the loss of one minibatch, whose luck decides the sign. The loss at w* over all texts, "
        why += "and its fall along minus the gradient there, would decide it."
    elif verdict == "supported":
        why = f"No model's held-out loss falls by more than {margin} along minus the gradient at w*, and no λ̂ is ≤ 0."
    elif verdict == "not supported":
        why = f"The held-out loss falls by more than {margin} along minus the gradient at w*, or λ̂ lies below 0: {names}. {counts}."
    else:
        why = f"It is open whether the held-out loss falls by more than {margin}, or λ̂ is below 0, for {names}. {counts}. "
        why += "More texts for the gradient, or more shuffles, would decide it."
    return Finding(
        verdict,
        why + not_run(*evidence.families),
        chief.effect,
        chief.interval,
        chief.p_value,
        (*parts, *beside),
    )


def lowest(name: str, llc_G: Array, descent: tuple[float, float] | None, rules: Rules) -> Part:
    """One model. The fall is a mean over hundreds of texts, so that its interval is normal; p is of
    the test that it is below `descent`.
    """
    below = inference.mean(llc_G, rules.level).interval if len(llc_G) else None
    negative = below is not None and below[1] < 0
    verdict: Verdict = "not supported" if negative else "inconclusive"
    if descent is None:
        return piece(f"{name}: fall of the held-out loss", verdict, None)
    fall, error = descent
    half = float(stats.norm.ppf(1 - rules.level / 2)) * error
    if fall - half > rules.descent:
        verdict = "not supported"
    elif not negative and fall + half <= rules.descent and len(llc_G) and (llc_G > 0).all():
        verdict = "supported"
    p = (
        float(stats.norm.cdf((fall - rules.descent) / error))
        if error > 0
        else float(fall > rules.descent)
    )
    return piece(f"{name}: fall of the held-out loss", verdict, fall, (fall - half, fall + half), p)


def same_data(evidence: Evidence, rules: Rules) -> Finding | None:
    """A2. By construction where the models were trained here, by citation else; there is nothing to
    estimate.
    """
    if not evidence.provenance:
        return None
    silent = [family for family, text in evidence.provenance.items() if text is None]
    if silent:
        why = f"Nothing at hand says what the models of {', '.join(silent)} were trained on; a statement of their authors would decide it."
        return Finding("inconclusive", why)
    return Finding("supported", " ".join(text for text in evidence.provenance.values() if text))
