"""Claims C10 and C11: λ̂ across weight formats and across families."""

from __future__ import annotations

import numpy as np
from scipy import stats

from replicate.estimation import statistics
from replicate.estimation.statistics import Interval
from replicate.models.config import LOSSES
from replicate.study.claims import likeness
from replicate.study.claims.base import Claim, Finding, inconclusive, part
from replicate.study.claims.evidence import Array, Evidence, Family
from replicate.study.claims.units import checkpoints, repeated
from replicate.study.claims.verdicts import equivalent, known, mean, number, together, words
from replicate.study.records import Quantised
from replicate.study.records.verdicts import Part, Verdict
from replicate.study.rules import Rules

OPPOSITE: dict[Verdict, Verdict] = {  # of the claim that there is no effect
    "supported": "not supported",
    "inconclusive": "inconclusive",
    "not supported": "supported",
}


class QuantisationMoves(Claim):
    """NF4 moves a model if the interval of the rise of its loss at w* from float32 lies outside
    ± `descent`, or the interval of the relative change of λ̂ of the same parameters lies outside
    ± `negligible`. The claim is supported if NF4 moves a model, and not supported if both intervals
    of every model lie within these margins. Other formats, and the fall of the loss along minus the
    gradient, are reported and not judged.
    """

    id = "C10"
    title = "Loading in 4 bits may move a model out of its minimum"
    measure = "rise of the loss at w* from float32 to NF4 (nats)"
    needs = "loss at w* and λ̂ of one model in float32 and in NF4, moving the same parameters"
    sources = (("quantisation", "{quantised}: rise, changes, descent"),)

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        judged, beside, falls = [], [], []
        for row in evidence.quantisation:
            if row.weights == "nf4" and row.moved == "restricted":
                judged += _moved(row, rules, decides=True)
            else:
                beside += _moved(row, rules, decides=False)
            if row.weights in ("float32", "nf4"):
                name = f"{_format(row)}: fall along minus the gradient"
                falls.append(part(name, None, row.descent))
        if not judged:
            return None
        moved = [f"{p.name} is {number(p.effect)}" for p in judged if p.verdict == "supported"]
        still = all(p.verdict == "not supported" for p in judged)
        verdict = "supported" if moved else "not supported" if still else "inconclusive"
        margins = f"{rules.descent:g} nats, or λ̂ by more than {100 * rules.negligible:g} %"
        why = words(
            verdict,
            supported=f"Beyond the margins ({margins}): {'; '.join(moved)}.",
            against=f"In NF4 no model's loss at w* rises by more than {margins}.",
            undecided=f"It is open whether the loss at w* rises by more than {margins}; more "
            "shuffles would decide it.",
        )
        rise = max((p for p in judged if "rise" in p.name), key=lambda p: p.effect or 0.0)
        chief = part("", verdict, rise.effect, rise.interval)
        return Finding(chief, why, (*judged, *beside, *falls))


def _format(row: Quantised) -> str:
    return f"{row.model}, {row.weights}, {row.moved}"


def _moved(row: Quantised, rules: Rules, decides: bool) -> list[Part]:
    """Returns two parts, the rise of the loss and the change of λ̂ from float32 to one format. It
    returns none for float32 itself, or if float32 was not run. `decides` tells whether the parts
    are judged.
    """
    if row.rise is None or row.rise_error is None or row.weights == "float32":
        return []
    half = float(stats.norm.ppf(1 - rules.level / 2)) * row.rise_error
    rise = (row.rise - half, row.rise + half)
    # if a shuffle diverged, its change and the mean are NaN, and the part is inconclusive
    change = statistics.mean(np.array(row.changes, float), rules.level)
    of_rise = OPPOSITE[equivalent(rise, rules.descent)] if decides else None
    of_change = OPPOSITE[equivalent(change.interval, rules.negligible)] if decides else None
    return [
        part(f"{_format(row)}: rise of the loss at w*", of_rise, row.rise, rise),
        part(f"{_format(row)}: relative change of λ̂", of_change, change.value, change.interval),
    ]


class FamiliesCompare(Claim):
    """The claim is not supported if λ̂ of the two families is not of one kind, because chains move
    another share of the parameters, or because nβ or the loss differs. Otherwise it is not
    supported if a model of the second family lies outside the prediction interval of the first
    family's power law in sampled parameters, and supported if the prediction interval of every
    model's ratio to that law lies within 1 ± `negligible`. The law is fitted to ln λ̂ over
    trainings, with the pooled variance within sizes (and the level divided by the number of models
    that may lie outside), if every size was trained several times; otherwise to the means over
    shuffles, and the verdict is about these checkpoints. The effect is the ratio of λ̂ per sampled
    parameter between the two models whose numbers of sampled parameters are closest, second over
    first.
    """

    id = "C11"
    title = "λ̂ of different families can be compared"
    measure = "ratio of λ̂ per sampled parameter at the nearest size, quantised over full"
    needs = "λ̂ of both families"
    sources = (("estimates", "shuffles, sampled_parameters"), ("baselines", "loss"))
    published_source = "families.*.models.*.mean, parameters, sampled"

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        if (found := likeness.over_trainings(evidence, rules)) is not None:
            return found
        if evidence.full is None or evidence.quantised is None:
            return None
        if repeated(evidence.full) or repeated(evidence.quantised):
            return None
        (full, start, lost), (quantised, _, too) = (
            checkpoints(family, evidence) for family in (evidence.full, evidence.quantised)
        )
        if not full.models or not quantised.models:
            return inconclusive(
                f"No λ̂ of one family is judged; chains that are would decide it.{lost}{too}"
            )
        apart = np.abs(np.log(quantised.sampled_M[:, None] / full.sampled_M))
        q, f = map(int, np.unravel_index(np.argmin(apart), apart.shape))
        names = quantised.models[q], full.models[f]
        llc_q, llc_f = quantised.llc_SxM[:, q], full.llc_SxM[:, f]
        ratio = _ratio(llc_q / quantised.sampled_M[q], llc_f / full.sampled_M[f], rules)
        parts = [part(f"{' over '.join(names)}: λ̂ per sampled parameter", None, *ratio)]
        rows = [evidence.baselines[name] for name in names if name in evidence.baselines]
        losses = [row.loss for row in rows if row.loss is not None]
        if len(losses) == 2:
            by_nat = _ratio(llc_q / losses[0], llc_f / losses[1], rules)
            parts.append(
                part(f"{' over '.join(names)}: λ̂ per nat of the loss at w*", None, *by_nat)
            )
        verdict, why, judged = _likeness(full, quantised, f, q, rules)
        why = f"{start}{why}{lost}{too}"
        return Finding(part("", verdict, *ratio), why, (*parts, *judged))


def _likeness(
    full: Family, quantised: Family, f: int, q: int, rules: Rules
) -> tuple[Verdict, str, list[Part]]:
    """Judges whether λ̂ of the families is the same quantity, and then whether one law fits both."""
    unlike, besides = _differences(full, quantised, f, q)
    if unlike:
        why = f"λ̂ of the two families is not of one kind: {'; '.join(unlike + besides)}."
        return "not supported", why, []
    judged = _against_law(full, quantised, rules)
    if not judged:
        why = "A power law needs three models of the full family and λ̂ above 0; more models, or "
        return "inconclusive", f"{why}less noise, would decide it.", []
    verdict = together([p.verdict for p in judged])
    law = "the full family's power law"
    why = words(
        verdict,
        supported=f"Every quantised model lies on {law}.",
        against=f"A quantised model lies outside the prediction interval of {law}.",
        undecided=f"The quantised models lie within the wide prediction interval of {law}; more "
        "models would decide it.",
    )
    return verdict, why + (f" Besides, {'; '.join(besides)}." if besides else ""), judged


def _differences(full: Family, quantised: Family, f: int, q: int) -> tuple[list[str], list[str]]:
    """Returns what makes λ̂ of the families different quantities, and what only changes it."""
    unlike, besides = [], []
    share_q = quantised.sampled_M[q] / quantised.parameters_M[q]
    share_f = full.sampled_M[f] / full.parameters_M[f]
    if not np.isclose(share_f, share_q):
        unlike.append(
            f"chains move {share_q:.2g} of the parameters of {quantised.models[q]}, "
            f"and {share_f:.2g} of {full.models[f]}'s"
        )
    if full.nbeta != quantised.nbeta:
        unlike.append(f"nβ is {number(quantised.nbeta)} against {number(full.nbeta)}")
    if full.loss != quantised.loss:
        unlike.append(f"the loss is of {LOSSES[quantised.loss]} against {LOSSES[full.loss]}")
    if full.localization != quantised.localization:
        values = f"{quantised.localization:g} against {full.localization:g}"
        besides.append(f"the localisation is {values}")
    if full.tokenizer != quantised.tokenizer:
        besides.append("tokenizers differ, and with them what a label and a nat per label are")
    return unlike, besides


def _ratio(a_S: Array, b_S: Array, rules: Rules) -> tuple[float, Interval | None]:
    """Returns mean(a)/mean(b) and Welch's interval of it on the log scale (delta method). The
    interval is None unless the t intervals of both means lie above 0.
    """
    a, b = mean(a_S, rules), mean(b_S, rules)
    value = a.value / b.value if b.value else float("nan")
    if any(effect.interval is None or effect.interval[0] <= 0 for effect in (a, b)):
        return value, None
    samples = known(a_S), known(b_S)
    squared = np.array([np.var(x, ddof=1) / len(x) / np.mean(x) ** 2 for x in samples])
    total, freedoms = float(squared.sum()), [len(x) - 1 for x in samples]
    freedom = total**2 / float((squared**2 / freedoms).sum()) if total > 0 else 1.0
    half = float(stats.t.ppf(1 - rules.level / 2, freedom)) * total**0.5
    return value, (value * float(np.exp(-half)), value * float(np.exp(half)))


def _against_law(full: Family, quantised: Family, rules: Rules) -> list[Part]:
    """Compares λ̂ of each quantised model with the full family's power law, which is fitted to log λ̂
    against log sampled parameters. Returns no part if the law cannot be fitted.
    """
    every = [family.llc_SxM for family in (full, quantised)]
    if len(full.models) < 3 or not all(np.isfinite(llc_SxM).any(0).all() for llc_SxM in every):
        return []
    llc_F, llc_Q = (np.nanmean(llc_SxM, axis=0) for llc_SxM in every)
    if min(llc_F.min(), llc_Q.min()) <= 0:
        return []
    x_F, x_Q = np.log(full.sampled_M), np.log(quantised.sampled_M)
    law = np.polynomial.Polynomial.fit(x_F, np.log(llc_F), 1)
    residual_F = np.log(llc_F) - law(x_F)
    spread = (residual_F @ residual_F / (len(x_F) - 2)) ** 0.5
    leverage_Q = 1 / len(x_F) + (x_Q - x_F.mean()) ** 2 / (len(x_F) * np.var(x_F))
    half_Q = stats.t.ppf(1 - rules.level / 2, len(x_F) - 2) * spread * (1 + leverage_Q) ** 0.5
    parts = []
    for name, off, half in zip(quantised.models, np.log(llc_Q) - law(x_Q), half_Q, strict=True):
        band = (float(np.expm1(off - half)), float(np.expm1(off + half)))
        near = "supported" if equivalent(band, rules.negligible) == "supported" else "inconclusive"
        verdict = near if abs(off) <= half else "not supported"
        title = f"{name}: λ̂ over the full family's power law, minus 1"
        parts.append(part(title, verdict, float(np.expm1(off)), band))
    return parts
