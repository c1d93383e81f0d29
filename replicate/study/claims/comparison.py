"""Claims C10 and C11: λ̂ across weight formats and across families."""

from __future__ import annotations

import numpy as np
from scipy import stats

from replicate.estimation import statistics
from replicate.estimation.statistics import Interval
from replicate.study.claims.base import Claim, Finding
from replicate.study.claims.evidence import Array, Evidence, Family, Rules
from replicate.study.claims.verdicts import equivalent, number, part, together, words
from replicate.study.records import Part, Quantised, Verdict


class QuantisationMoves(Claim):
    id = "C10"
    title = "Loading in 4 bits may move a model out of its minimum"
    rule = (
        "Supported where NF4 moves one model: the interval of the rise of its loss at w* lies "
        "above `descent`, or that of the relative change of λ̂ of the same parameters outside ± "
        "`negligible`. Not supported where both intervals of every model lie within. Other formats "
        "and the fall of the loss along minus the gradient are told, not judged."
    )
    measure = "rise of the loss at w* from float32 to NF4 (nats)"
    needs = "loss at w* and λ̂ of one model in float32 and in NF4, moving the same parameters"
    sources = (("quantisation", "{quantised}: rise, changes, descent"),)

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        judged, beside = [], []
        for row in evidence.quantisation:
            decides = row.weights == "nf4" and row.moved == "restricted"
            (judged if decides else beside).extend(_moved(row, decides, rules))
        if not judged:
            return None
        for row in evidence.quantisation:
            if row.weights in ("float32", "nf4"):
                name = f"{_format(row)}: fall along minus the gradient"
                beside.append(part(name, None, row.descent))
        verdicts = {p.verdict for p in judged}
        verdict: Verdict = "inconclusive" if "inconclusive" in verdicts else "not supported"
        if "supported" in verdicts:
            verdict = "supported"
        rises = (p for p in judged if "rise" in p.name)
        chief = max(rises, key=lambda p: p.effect or 0.0)
        margins = f"{rules.descent:g} nats, or λ̂ by more than {100 * rules.negligible:g} %"
        moved = [f"{p.name} is {number(p.effect)}" for p in judged if p.verdict == "supported"]
        why = words(
            verdict,
            supported=f"Beyond the margins ({margins}): {'; '.join(moved)}.",
            against=f"In NF4 no model's loss at w* rises by more than {margins}.",
            undecided=f"It is open whether the loss at w* rises by more than {margins}; more "
            "shuffles would decide it.",
        )
        return Finding(verdict, why, chief.effect, chief.interval, None, (*judged, *beside))


def _format(row: Quantised) -> str:
    return f"{row.model}, {row.weights}, {row.moved}"


def _moved(row: Quantised, decides: bool, rules: Rules) -> list[Part]:
    """Returns two parts, the rise of the loss and the change of λ̂ from float32 to one format. There
    are none for float32 itself, or if float32 was not run.
    """
    if row.rise is None or row.rise_error is None or row.weights == "float32":
        return []
    half = float(stats.norm.ppf(1 - rules.level / 2)) * row.rise_error
    rise = (row.rise - half, row.rise + half)
    # If a shuffle diverged, its change and the mean are NaN, and the part is inconclusive.
    change = statistics.mean(np.array(row.changes, float), rules.level)
    interval, value = change.interval, change.value if np.isfinite(change.value) else None
    if interval is not None and not np.isfinite(interval).all():
        interval = None
    of_rise = _beyond(rise, rules.descent) if decides else None
    of_change = _beyond(interval, rules.negligible) if decides else None
    name = _format(row)
    return [
        part(f"{name}: rise of the loss at w*", of_rise, row.rise, rise),
        part(f"{name}: relative change of λ̂", of_change, value, interval),
    ]


def _beyond(interval: Interval | None, margin: float) -> Verdict:
    """Judges the claim that there is an effect: the interval must lie wholly outside ± `margin`."""
    opposite: dict[Verdict, Verdict] = {"supported": "not supported", "not supported": "supported"}
    verdict = equivalent(interval, margin)
    return opposite.get(verdict, verdict)


class FamiliesCompare(Claim):
    id = "C11"
    title = "λ̂ of different families can be compared"
    rule = (
        "Not supported where λ̂ of the two families is not of one kind: a restricted model against "
        "a whole one, or another nβ. Else not supported where a quantised model lies outside the "
        "prediction interval of the full family's power law in sampled parameters, and supported "
        "where all intervals of the ratio to that law are within ± `negligible`. Effect: the ratio "
        "of λ̂ per sampled parameter between the models of the nearest size, quantised over full."
    )
    measure = "ratio of λ̂ per sampled parameter at the nearest size, quantised over full"
    needs = "λ̂ of both families"
    sources = (("estimates", "shuffles, sampled_parameters"), ("baselines", "loss"))
    published_source = "families.*.models.*.mean, parameters, sampled"

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        full, quantised = evidence.full, evidence.quantised
        if full is None or quantised is None:
            return None
        apart = np.abs(np.log(quantised.sampled_M[:, None] / full.sampled_M))
        q, f = map(int, np.unravel_index(np.argmin(apart), apart.shape))
        pair = f"{quantised.models[q]} over {full.models[f]}"
        llc_q, llc_f = quantised.llc_SxM[:, q], full.llc_SxM[:, f]
        value, interval = _ratio(
            llc_q / quantised.sampled_M[q], llc_f / full.sampled_M[f], rules.level
        )
        parts = [part(f"{pair}: λ̂ per sampled parameter", None, value, interval)]
        if np.isfinite([quantised.loss_M[q], full.loss_M[f]]).all():
            by_nat = _ratio(llc_q / quantised.loss_M[q], llc_f / full.loss_M[f], rules.level)
            parts.append(part(f"{pair}: λ̂ per nat of the loss at w*", None, *by_nat))
        verdict, why, judged = _likeness(full, quantised, f, q, rules)
        return Finding(verdict, why, value, interval, None, (*parts, *judged))


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
    share_f, share_q = (
        family.sampled_M[i] / family.parameters_M[i] for family, i in ((full, f), (quantised, q))
    )
    unlike, besides = [], []
    if not np.isclose(share_f, share_q):
        unlike.append(
            f"chains move {share_q:.2g} of the parameters of {quantised.models[q]}, "
            f"and {share_f:.2g} of {full.models[f]}'s"
        )
    if full.nbeta != quantised.nbeta:
        unlike.append(f"nβ is {number(quantised.nbeta)} against {number(full.nbeta)}")
    if full.localization != quantised.localization:
        values = f"{quantised.localization:g} against {full.localization:g}"
        besides.append(f"the localisation is {values}")
    if full.tokenizer != quantised.tokenizer:
        besides.append("tokenizers differ, and with them what a label and a nat per label are")
    return unlike, besides


def _ratio(a_S: Array, b_S: Array, level: float) -> tuple[float | None, Interval | None]:
    """Returns mean(a)/mean(b) and Welch's interval of it on the log scale (delta method). The
    interval is None unless the t intervals of both means lie above 0.
    """
    a_S, b_S = a_S[np.isfinite(a_S)], b_S[np.isfinite(b_S)]
    if not len(a_S) or not len(b_S) or not np.mean(b_S):
        return None, None
    value = float(np.mean(a_S) / np.mean(b_S))
    for effect in (statistics.mean(a_S, level), statistics.mean(b_S, level)):
        if effect.interval is None or effect.interval[0] <= 0:
            return value, None
    squared = np.array([np.var(x, ddof=1) / len(x) / np.mean(x) ** 2 for x in (a_S, b_S)])
    total = float(squared.sum())
    freedom = (
        total**2 / float((squared**2 / (len(a_S) - 1, len(b_S) - 1)).sum()) if total > 0 else 1.0
    )
    half = float(stats.t.ppf(1 - level / 2, freedom)) * total**0.5
    return value, (value * float(np.exp(-half)), value * float(np.exp(half)))


def _against_law(full: Family, quantised: Family, rules: Rules) -> list[Part]:
    """Compares λ̂ of each quantised model with the full family's power law, which is fitted to log λ̂
    against log sampled parameters. Returns no part if the law cannot be fitted.
    """
    known = all(np.isfinite(family.llc_SxM).any(0).all() for family in (full, quantised))
    if len(full.models) < 3 or not known:
        return []
    llc_F, llc_Q = (np.nanmean(family.llc_SxM, axis=0) for family in (full, quantised))
    if not (llc_F > 0).all() or not (llc_Q > 0).all():
        return []
    x_F, x_Q = np.log(full.sampled_M), np.log(quantised.sampled_M)
    law = np.polynomial.Polynomial.fit(x_F, np.log(llc_F), 1)
    residual_F = np.log(llc_F) - law(x_F)
    spread = (residual_F @ residual_F / (len(x_F) - 2)) ** 0.5
    error_Q = (
        spread * (1 + 1 / len(x_F) + (x_Q - x_F.mean()) ** 2 / (len(x_F) * np.var(x_F))) ** 0.5
    )
    half_Q = float(stats.t.ppf(1 - rules.level / 2, len(x_F) - 2)) * error_Q
    parts = []
    for name, off, half in zip(quantised.models, np.log(llc_Q) - law(x_Q), half_Q, strict=True):
        band = (float(np.expm1(off - half)), float(np.expm1(off + half)))
        near = "supported" if equivalent(band, rules.negligible) == "supported" else "inconclusive"
        verdict = near if abs(off) <= half else "not supported"
        title = f"{name}: λ̂ over the full family's power law, minus 1"
        parts.append(part(title, verdict, float(np.expm1(off)), band))
    return parts
