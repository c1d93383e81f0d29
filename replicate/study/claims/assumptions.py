"""Claims A1 and A2: the assumptions of the write-up."""

from __future__ import annotations

import numpy as np
from scipy import stats

from replicate.estimation import statistics
from replicate.study.claims.base import Claim, Finding
from replicate.study.claims.evidence import Array, Evidence, Rules
from replicate.study.claims.verdicts import deciding, not_run, part
from replicate.study.records import Part, Source, Verdict


class AtAMinimum(Claim):
    id = "A1"
    title = "Pretrained models are at a local minimum of the loss that is sampled"
    rule = (
        "Of each model: supported where the upper end of the fall of its held-out loss is not "
        "above `descent` and no shuffle has λ̂ ≤ 0; not supported where the lower end is above, or "
        "the t interval of λ̂ lies below 0. For all models together."
    )
    measure = "fall of the held-out loss along minus the gradient at w* (nats)"
    needs = "the loss and its gradient at w*, and λ̂"
    sources = (
        ("baselines", "descent, descent_error, gradient_norm_squared"),
        ("estimates", "controlled: shuffles"),
    )
    published_source = "families.*.models.*.mean"

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        if not evidence.families:
            return None
        parts, beside, counted = [], [], []
        for family in evidence.families:
            below = int((family.llc_SxM <= 0).sum())
            known = int(np.isfinite(family.llc_SxM).sum())
            counted.append(f"{below} of {known} λ̂ of {family.name} are ≤ 0")
            for name, llc_S in zip(family.models, family.llc_SxM.T, strict=True):
                known_S = llc_S[np.isfinite(llc_S)]
                parts.append(_fall(name, known_S, evidence.descents.get(name), rules))
                if len(known_S):
                    share = float(np.mean(known_S <= 0))
                    beside.append(part(f"{name}: share of λ̂ ≤ 0", None, share))
                if name in evidence.gradients:
                    norm = evidence.gradients[name]
                    beside.append(part(f"{name}: squared gradient norm", None, norm))
        chief, counts = deciding(parts), "; ".join(counted)
        names = ", ".join(p.name.split(":")[0] for p in parts if p.verdict == chief.verdict)
        falls = f"falls by more than {rules.descent:g} nats"
        along = f"{falls} along minus the gradient at w*"
        if not evidence.descents and chief.verdict == "inconclusive":
            why = (
                f"{counts}, but each was taken against the loss of one minibatch, and the error of "
                "that baseline decides the sign. The loss at w* over all texts, and its fall along "
                "minus the gradient there, would decide it."
            )
        elif chief.verdict == "supported":
            why = f"No model's held-out loss {along}, and no λ̂ is ≤ 0."
        elif chief.verdict == "not supported":
            why = f"The held-out loss {along}, or λ̂ lies below 0: {names}. {counts}."
        else:
            why = (
                f"It is open whether the held-out loss {falls}, or λ̂ is below 0, for {names}. "
                f"{counts}. More texts for the gradient, or more shuffles, would decide it."
            )
        return Finding.on(chief, why + not_run(*evidence.families), (*parts, *beside))


def _fall(name: str, llc_S: Array, descent: tuple[float, float] | None, rules: Rules) -> Part:
    """Judges one model. Its interval is normal, as the fall is a mean over hundreds of texts."""
    below = statistics.mean(llc_S, rules.level).interval if len(llc_S) else None
    negative = below is not None and below[1] < 0
    verdict: Verdict = "not supported" if negative else "inconclusive"
    title = f"{name}: fall of the held-out loss"
    if descent is None:
        return part(title, verdict, None)
    fall, error = descent
    half = float(stats.norm.ppf(1 - rules.level / 2)) * error
    if fall - half > rules.descent:
        verdict = "not supported"
    elif not negative and fall + half <= rules.descent and len(llc_S) and (llc_S > 0).all():
        verdict = "supported"
    above = fall - rules.descent
    p = float(stats.norm.cdf(above / error)) if error > 0 else float(above > 0)
    return part(title, verdict, fall, (fall - half, fall + half), p)


class SameData(Claim):
    id = "A2"
    title = "The models of a family saw the same data"
    rule = (
        "By construction where the models were trained here, by citation else; there is nothing to "
        "estimate."
    )
    measure = "none"
    needs = "the training of the models"
    sources = (("training", "epochs"), ("windows", "kept"))

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        if not evidence.provenance:
            return None
        silent = [family for family, text in evidence.provenance.items() if text is None]
        if silent:
            what = f"what the models of {', '.join(silent)} were trained on"
            remedy = "a statement of their authors would decide it"
            return Finding("inconclusive", f"Nothing at hand says {what}; {remedy}.")
        return Finding("supported", " ".join(text for text in evidence.provenance.values() if text))

    def cite(self, evidence: Evidence) -> list[Source]:
        if evidence.cited:
            return [Source(file="paper/references.bib", key=key) for key in evidence.cited]
        return super().cite(evidence)
