"""Claims A1 and A2: the assumptions of the write-up."""

from __future__ import annotations

import numpy as np
from scipy import stats

from replicate.study.claims.base import Claim, Finding, inconclusive, part
from replicate.study.claims.evidence import Array, Evidence
from replicate.study.claims.verdicts import deciding, known, mean, not_run
from replicate.study.records import Baseline
from replicate.study.records.verdicts import Part, Source, Verdict
from replicate.study.rules import Rules


class AtAMinimum(Claim):
    """A model supports the claim if the interval of the fall of its held-out loss ends at or below
    `descent`, and no shuffle has λ̂ ≤ 0. It speaks against the claim if that interval lies above
    `descent`, or the t interval of λ̂ lies below 0. The claim is supported if all models support
    it, and not supported if one speaks against it.
    """

    id = "A1"
    title = "Pretrained models are at a local minimum of the loss that is sampled"
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
            llc = known(family.llc_SxM)
            counted.append(f"{(llc <= 0).sum()} of {llc.size} λ̂ of {family.name} are ≤ 0")
            for name, llc_S in zip(family.models, family.llc_SxM.T, strict=True):
                known_S, baseline = known(llc_S), evidence.baselines.get(name)
                parts.append(_fall(name, known_S, baseline, rules))
                if len(known_S):
                    share = float(np.mean(known_S <= 0))
                    beside.append(part(f"{name}: share of λ̂ ≤ 0", None, share))
                if baseline is not None and (norm := baseline.gradient_norm_squared) is not None:
                    beside.append(part(f"{name}: squared gradient norm", None, norm))
        chief, counts = deciding(parts), "; ".join(counted)
        names = ", ".join(p.name.split(":")[0] for p in parts if p.verdict == chief.verdict)
        falls = f"falls by more than {rules.descent:g} nats"
        along = f"{falls} along minus the gradient at w*"
        if chief.verdict == "supported":
            why = f"No model's held-out loss {along}, and no λ̂ is ≤ 0."
        elif chief.verdict == "not supported":
            why = f"The held-out loss {along}, or λ̂ lies below 0: {names}. {counts}."
        elif evidence.published is not None:
            why = (
                f"{counts}, but each was taken against the loss of one minibatch, and the error of "
                "that baseline decides the sign. The loss at w* over all texts, and its fall along "
                "minus the gradient there, would decide it."
            )
        else:
            why = (
                f"It is open whether the held-out loss {falls}, or λ̂ is below 0, for {names}. "
                f"{counts}. More texts for the gradient, or more shuffles, would decide it."
            )
        return Finding(chief, why + not_run(evidence.missing), (*parts, *beside))


def _fall(name: str, llc_S: Array, baseline: Baseline | None, rules: Rules) -> Part:
    """Judges one model by a normal interval, because the fall is a mean over hundreds of texts."""
    below = mean(llc_S, rules).interval
    negative = below is not None and below[1] < 0
    verdict: Verdict = "not supported" if negative else "inconclusive"
    title = f"{name}: fall of the held-out loss"
    if baseline is None or baseline.descent is None or baseline.descent_error is None:
        return part(title, verdict)
    fall, error = baseline.descent, baseline.descent_error
    half = float(stats.norm.ppf(1 - rules.level / 2)) * error
    if fall - half > rules.descent:
        verdict = "not supported"
    elif not negative and fall + half <= rules.descent and len(llc_S) and (llc_S > 0).all():
        verdict = "supported"
    above = fall - rules.descent
    p = float(stats.norm.cdf(above / error)) if error > 0 else float(above > 0)
    return part(title, verdict, fall, (fall - half, fall + half), p)


class SameData(Claim):
    """The claim is supported by construction if the models were trained here, and by citation if
    their authors say so. Nothing is estimated.
    """

    id = "A2"
    title = "The models of a family saw the same data"
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
            return inconclusive(f"Nothing at hand says {what}; {remedy}.")
        why = " ".join(text for text in evidence.provenance.values() if text)
        return Finding(part("", "supported"), why)

    def cite(self, evidence: Evidence, found: Finding) -> list[Source]:
        if evidence.cited:
            return [Source(file="paper/references.bib", key=key) for key in evidence.cited]
        return super().cite(evidence, found)
