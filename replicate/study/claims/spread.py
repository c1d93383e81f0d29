"""Claims R4 and R5: what is beyond the quadratic, and whether one training tells sizes apart."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from scipy import stats

from replicate.seeds import derive
from replicate.study.claims.base import Claim, Finding, not_decided, part
from replicate.study.claims.evidence import Evidence
from replicate.study.claims.trainings import Table, paired_slope, tables
from replicate.study.claims.units import CHECKPOINTS, TRAININGS, at_setting, over_trainings
from replicate.study.claims.verdicts import deciding, directed, number, span, words
from replicate.study.records import Setting
from replicate.study.records.verdicts import Part, Verdict
from replicate.study.rules import Rules


class BeyondQuadraticGrows(Claim):
    """D = ln λ̂(`setting`) − ln λ̂(`finer`), both without the part that the gradient at w* makes, is
    taken of each training: what depends on α = γ/nβ alone cancels. The claim is supported if the
    95 % t interval of its least-squares slope on ln d, with the pooled variance within sizes, lies
    above 0, and not supported if it lies below. If each size has one training, the Monte-Carlo
    errors are used. A training is not judged without its gradient part.
    """

    id = "R4"
    title = "What is beyond the quadratic grows with size"
    measure = "slope of D on ln d"
    needs = "λ̂ of two sizes at two settings of one γ/nβ"
    sources = (("settings", "llc, gradient_part, regime"),)
    published_source = "families.*.models.*.mean"

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        if evidence.published is not None:
            return not_decided("λ̂ of each model was published at one setting.")
        found, several = tables(evidence.settings, evidence.full_name, rules)
        points = rules.trainings.setting, rules.trainings.finer
        if not all(any(table.at(point) for table in found) for point in points):
            return None
        coarse, finer = (at_setting(found, point) for point in points)
        if isinstance(coarse, Finding):
            return coarse
        if isinstance(finer, Finding):
            return finer
        (coarse_rest, lost), (finer_rest, too) = map(_without_gradient, (coarse, finer))
        left = f"{coarse.omitted}{finer.omitted}"
        if lost + too:
            left += f" Without a gradient part: {lost + too} λ̂, which are not judged."
        slope = paired_slope(coarse_rest, finer_rest, _log_rest, rules)
        if slope is None:
            why = "No two sizes have λ̂ with its gradient part at both settings; they would decide."
            return Finding(part("", "inconclusive"), why + left)
        chief = directed("", slope, rules.level)
        ending = words(
            chief.verdict,
            supported="it grows",
            against="it falls",
            undecided="more trainings, or more draws, would decide it",
        )
        why = (
            f"From {finer.name}, where {finer.measured}, to {coarse.name}, where "
            f"{coarse.measured}, the slope of D on ln d is {number(chief.effect)} "
            f"({span(chief.interval, rules)} {over_trainings(coarse_rest, rules)}): {ending}."
        )
        means = [table.layout(_log_rest).means_K for table in (coarse_rest, finer_rest)]
        parts = []
        if len(means[0]) == len(means[1]) == len(coarse.sizes):
            names = (f"{size}: mean D" for size in coarse.sizes)
            parts = [part(n, None, float(a - b)) for n, a, b in zip(names, *means, strict=True)]
        return Finding(chief, ("" if several else CHECKPOINTS) + why + left, parts)


def _without_gradient(table: Table) -> tuple[Table, int]:
    """Returns the rows whose λ̂ without its gradient part is known and above 0, and the number of
    the others.
    """
    rows = tuple(
        row
        for row in table.rows
        if row.gradient_part is not None and (row.llc or 0.0) > row.gradient_part[0]
    )
    return replace(table, rows=rows), len(table.rows) - len(rows)


def _log_rest(row: Setting) -> tuple[float, float]:
    """Returns ln(λ̂ − gradient part) and its standard error."""
    taken, error = row.gradient_part or (math.nan, math.nan)
    rest = (row.llc or 0.0) - taken
    return math.log(rest), math.hypot(row.standard_error or 0.0, error) / rest


class TellsApart(Claim):
    """p = Φ(Δ/(√2·σ)) is the probability that one training of each of two neighbouring sizes gives
    λ̂ in the order of the trend: Δ is the gap of their mean ln λ̂ in the direction of the trend, and
    σ the standard deviation between trainings, pooled over sizes and net of the Monte-Carlo errors.
    Bounds are quantiles of fiducial draws of Δ and σ, and the effect is their median. The claim is
    supported if the one-sided lower 95 % bound of p is at least `apart` for every pair, and not
    supported if the upper one is below for a pair. Where a size has one training it is not decided.
    """

    id = "R5"
    title = "One training tells two sizes apart"
    measure = "p, where it decides"
    needs = "λ̂ of several trainings of each size"
    sources = TRAININGS
    published_source = "families.*.models.*.mean"

    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        found, several = tables(evidence.settings, evidence.full_name, rules)
        if not several:
            if not found and evidence.full is None:
                return None
            return not_decided("Each size has one training, and σ takes at least two of each.")
        main = at_setting(found, rules.trainings.setting)
        if isinstance(main, Finding):
            return main
        if main.different < 2:
            return Finding(part("", "inconclusive"), f"Two sizes would decide it.{main.omitted}")
        judged = _apart(main, rules)
        others = [each for t in found if t is not main and t.whole for each in _apart(t, rules)]
        chief, limit = deciding(judged), f"{rules.trainings.apart:g}"
        between = main.layout().between ** 0.5
        ending = words(
            chief.verdict,
            supported=f"every pair of neighbours has at least {limit}",
            against=f"it is below {limit}",
            undecided=f"which leaves open whether it is {limit}; more trainings would decide it",
        )
        pair, interval = chief.name.split(",")[0], span(chief.interval, rules)
        why = (
            f"At {main.name}, where {main.measured}, the trainings of a size differ by "
            f"{number(between)} in ln λ̂, and one training of each puts {pair} in the "
            f"order of the trend with p = {number(chief.effect)} ({interval} "
            f"{over_trainings(main, rules)}): {ending}.{main.omitted}"
        )
        return Finding(chief, why, (*judged, *others))


def _apart(table: Table, rules: Rules) -> list[Part]:
    """Judges R5 for each pair of neighbouring sizes at one setting."""
    found, limit = table.layout(), rules.trainings.apart
    seed = derive(rules.seed, "claims", "R5", table.name)
    means_RxK, deviation_R = found.resample(rules.bootstrap, seed)
    noise = float(np.mean(found.errors_N**2))
    sigma_R = np.maximum(deviation_R**2 - noise, 0.0) ** 0.5
    trend = math.copysign(1.0, found.slope(table.log_sizes_N, rules.level).value)
    parts = []
    for k in range(1, len(table.sizes)):
        gap_R = trend * (means_RxK[:, k] - means_RxK[:, k - 1])
        with np.errstate(divide="ignore"):
            p_R = stats.norm.cdf(gap_R / (2**0.5 * sigma_R))
        lower, upper = np.quantile(p_R, (rules.level, 1 - rules.level))
        verdict: Verdict = "inconclusive"
        if lower >= limit or upper < limit:
            verdict = "supported" if lower >= limit else "not supported"
        low, middle, high = np.quantile(p_R, (rules.level / 2, 0.5, 1 - rules.level / 2))
        name = f"{table.sizes[k - 1]} and {table.sizes[k]}, {table.name}: p"
        parts.append(part(name, verdict, float(middle), (float(low), float(high))))
    return parts
