"""C10, C11: λ̂ across weight formats and across families."""

from __future__ import annotations

import numpy as np
from scipy import stats

from replicate.estimation import statistics as inference
from replicate.estimation.statistics import Interval
from replicate.study.claims.evidence import Array, Evidence, Family, Rules
from replicate.study.claims.verdicts import Finding, equivalent, number, piece, together
from replicate.study.records import Part, Verdict


def quantisation_moves(evidence: Evidence, rules: Rules) -> Finding | None:
    """C10. Supported where NF4 moves one model: the interval of the rise of its loss at w* lies
    above `descent`, or that of the relative change of λ̂ of the same parameters outside ±
    `negligible`. Not supported where both intervals of every model lie within. Other formats and
    the fall of the loss along minus the gradient are told, not judged.
    """
    rows = [row for row in evidence.quantisation if row.status == "run"]
    judged, beside = [], []
    for row in rows:
        if row.rise is None or row.rise_error is None or row.weights == "float32":
            continue
        half = float(stats.norm.ppf(1 - rules.level / 2)) * row.rise_error
        rise = (row.rise - half, row.rise + half)
        change = inference.mean(
            np.array(row.changes, float), rules.level
        )  # NaN where a shuffle failed: no verdict
        what = f"{row.model}, {row.weights}, {row.moved}"
        decides = row.weights == "nf4" and row.moved == "restricted"
        into = judged if decides else beside
        into.append(
            piece(
                f"{what}: rise of the loss at w*",
                beyond(rise, rules.descent) if decides else None,
                row.rise,
                rise,
            )
        )
        shown = (
            change.interval
            if change.interval is not None and np.isfinite(change.interval).all()
            else None
        )
        value = change.value if np.isfinite(change.value) else None
        into.append(
            piece(
                f"{what}: relative change of λ̂",
                beyond(shown, rules.negligible) if decides else None,
                value,
                shown,
            )
        )
    beside += [
        piece(f"{r.model}, {r.weights}, {r.moved}: fall along minus the gradient", None, r.descent)
        for r in rows
        if r.weights in ("float32", "nf4")
    ]
    if not judged:
        return None
    verdicts = {part.verdict for part in judged}
    verdict = (
        "supported"
        if "supported" in verdicts
        else "inconclusive"
        if "inconclusive" in verdicts
        else "not supported"
    )
    chief = max(
        (part for part in judged if "rise" in part.name), key=lambda part: part.effect or 0.0
    )
    margins = f"{rules.descent:g} nats, or λ̂ by more than {100 * rules.negligible:g} %"
    moved = "; ".join(
        f"{part.name} is {number(part.effect)}" for part in judged if part.verdict == "supported"
    )
    why = {
        "supported": f"Beyond the margins ({margins}): {moved}.",
        "not supported": f"In NF4 no model's loss at w* rises by more than {margins}.",
        "inconclusive": f"It is open whether the loss at w* rises by more than {margins}; more shuffles would decide it.",
    }[verdict]
    return Finding(verdict, why, chief.effect, chief.interval, None, (*judged, *beside))


def beyond(interval: Interval | None, margin: float) -> Verdict:
    """Of a claim that there is an effect: the interval lies wholly outside ± `margin`, or
    within.
    """
    opposite: dict[Verdict, Verdict] = {"supported": "not supported", "not supported": "supported"}
    verdict = equivalent(interval, margin)
    return opposite.get(verdict, verdict)


def comparable(evidence: Evidence, rules: Rules) -> Finding | None:
    """C11. Not supported where λ̂ of the two families is not of one kind: a restricted model
    against a whole one, or another nβ. Else not supported where a quantised model lies outside the
    prediction interval of the full family's power law in sampled parameters, and supported where
    all intervals of the ratio to that law are within ± `negligible`. Effect: the ratio of λ̂ per
    sampled parameter between the models of the nearest size, quantised over full.
    """
    full, quantised = evidence.full, evidence.quantised
    if full is None or quantised is None:
        return None
    apart = np.abs(np.log(quantised.sampled_M[:, None] / full.sampled_M))
    q, f = map(int, np.unravel_index(np.argmin(apart), apart.shape))
    pair = f"{quantised.models[q]} over {full.models[f]}"
    value, interval = ratio(
        quantised.llc_GxM[:, q] / quantised.sampled_M[q],
        full.llc_GxM[:, f] / full.sampled_M[f],
        rules.level,
    )
    parts = [piece(f"{pair}: λ̂ per sampled parameter", None, value, interval)]
    if np.isfinite([quantised.loss_M[q], full.loss_M[f]]).all():
        by_nat = ratio(
            quantised.llc_GxM[:, q] / quantised.loss_M[q],
            full.llc_GxM[:, f] / full.loss_M[f],
            rules.level,
        )
        parts.append(piece(f"{pair}: λ̂ per nat of the loss at w*", None, *by_nat))
    unlike, besides = differences(full, quantised, f, q)
    if unlike:
        why = f"λ̂ of the two families is not of one kind: {'; '.join(unlike + besides)}."
        return Finding("not supported", why, value, interval, None, tuple(parts))
    judged = against_law(full, quantised, rules)
    if not judged:
        why = "A power law needs three models of the full family and λ̂ above 0; more models, or less noise, would decide it."
        return Finding("inconclusive", why, value, interval, None, tuple(parts))
    verdict = together([part.verdict for part in judged])
    why = (
        {
            "supported": "Every quantised model lies on the full family's power law.",
            "not supported": "A quantised model lies outside the prediction interval of the full family's power law.",
        }.get(verdict)
        or "The quantised models lie within the wide prediction interval of the full family's power law; more models would decide it."
    )
    why += f" Besides, {'; '.join(besides)}." if besides else ""
    return Finding(verdict, why, value, interval, None, (*parts, *judged))


def differences(full: Family, quantised: Family, f: int, q: int) -> tuple[list[str], list[str]]:
    """What makes λ̂ another quantity, and what only makes it differ."""
    share_F, share_Q = (
        full.sampled_M[f] / full.parameters_M[f],
        quantised.sampled_M[q] / quantised.parameters_M[q],
    )
    unlike, besides = [], []
    if not np.isclose(share_F, share_Q):
        unlike.append(
            f"chains move {share_Q:.2g} of the parameters of {quantised.models[q]}, and {share_F:.2g} of {full.models[f]}'s"
        )
    if full.nbeta != quantised.nbeta:
        unlike.append(f"nβ is {number(quantised.nbeta)} against {number(full.nbeta)}")
    if full.localization != quantised.localization:
        besides.append(
            f"the localisation is {quantised.localization:g} against {full.localization:g}"
        )
    if full.tokenizer != quantised.tokenizer:
        besides.append("tokenizers differ, and with them what a label and a nat per label are")
    return unlike, besides


def ratio(a_G: Array, b_G: Array, level: float) -> tuple[float | None, Interval | None]:
    """Mean of a over mean of b with Welch's interval of its logarithm (delta method); no interval
    where a mean may be 0.
    """
    a_G, b_G = a_G[np.isfinite(a_G)], b_G[np.isfinite(b_G)]
    if not len(a_G) or not len(b_G) or not np.mean(b_G):
        return None, None
    value = float(np.mean(a_G) / np.mean(b_G))
    if any(
        effect.interval is None or effect.interval[0] <= 0
        for effect in (inference.mean(a_G, level), inference.mean(b_G, level))
    ):
        return value, None
    squared = np.array([np.var(x, ddof=1) / len(x) / np.mean(x) ** 2 for x in (a_G, b_G)])
    total = float(squared.sum())
    freedom = (
        total**2 / float((squared**2 / (len(a_G) - 1, len(b_G) - 1)).sum()) if total > 0 else 1.0
    )
    half = float(stats.t.ppf(1 - level / 2, freedom)) * total**0.5
    return value, (value * float(np.exp(-half)), value * float(np.exp(half)))


def against_law(full: Family, quantised: Family, rules: Rules) -> list[Part]:
    """λ̂ of each quantised model over what log λ̂ ~ log sampled parameters of the full family
    predicts; empty where that cannot be fitted.
    """
    if len(full.models) < 3 or not all(
        np.isfinite(family.llc_GxM).any(0).all() for family in (full, quantised)
    ):
        return []
    llc_F, llc_Q = (np.nanmean(family.llc_GxM, axis=0) for family in (full, quantised))
    if not (llc_F > 0).all() or not (llc_Q > 0).all():
        return []
    x_F, x_Q = np.log(full.sampled_M), np.log(quantised.sampled_M)
    law = np.polynomial.Polynomial.fit(x_F, np.log(llc_F), 1)
    left_F = np.log(llc_F) - law(x_F)
    spread = (left_F @ left_F / (len(x_F) - 2)) ** 0.5
    error_Q = (
        spread * (1 + 1 / len(x_F) + (x_Q - x_F.mean()) ** 2 / (len(x_F) * np.var(x_F))) ** 0.5
    )
    half_Q = float(stats.t.ppf(1 - rules.level / 2, len(x_F) - 2)) * error_Q
    parts = []
    for name, off, half in zip(quantised.models, np.log(llc_Q) - law(x_Q), half_Q, strict=True):
        band = (float(np.expm1(off - half)), float(np.expm1(off + half)))
        near = "supported" if equivalent(band, rules.negligible) == "supported" else "inconclusive"
        verdict = near if abs(off) <= half else "not supported"
        parts.append(
            piece(
                f"{name}: λ̂ over the full family's power law, minus 1",
                verdict,
                float(np.expm1(off)),
                band,
            )
        )
    return parts
