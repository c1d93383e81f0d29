"""What each figure shows, in words, for those who do not see it: the shape of what is drawn, and
the numbers that make it.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from replicate.reporting.formatting import fixed, interval, number, percent, with_error
from replicate.reporting.report.evidence import Reference, Study
from replicate.study.records import Estimate, Trace


def llc(study: Study, reference: Reference) -> str:
    found = "; ".join(
        f"{row.model} {number(row.llc)}, 95 % interval {interval(row.interval)}"
        for row in study.run
    )
    theirs = [
        f"{name} {number(fmean(model.mean))}, shuffles from {number(min(model.mean))} to {number(max(model.mean))}"
        for family in reference.figures.models.values()
        for name, model in family.items()
    ]
    return (
        f"λ̂ against the number of parameters. Left, the {study.name} study: {found}. Right, the mean over all published shuffles: "
        f"{'; '.join(theirs)}."
    )


def original(study: Study, reference: Reference) -> str:
    family, figures = next(iter(reference.figures.families.items()))
    ends = ", ".join(
        f"{number(min(means))} to {number(max(means))} in shuffle {i}"
        for i, means in enumerate(figures.llc_GxM.tolist())
    )
    rows = [
        row for row in study.original if row.status == "run" and row.family == study.families[0]
    ]
    shares = [row.r_squared for row in rows if row.r_squared is not None]
    spreads = [
        f"{row.model} from {number(row.spread[0], 3)} to {number(row.spread[-1], 3)}"
        for row in rows
    ]
    return (
        f"Left, λ̂ as published of the models of {family}, which rise and fall together: {ends}. Middle, λ̂ by the same protocol in the "
        f"{study.name} study against the luck of the baseline minibatch: the points lie along the diagonal, R² "
        f"{fixed(min(shares, default=None))} to {fixed(max(shares, default=None))}. Right, the spread of λ̂ over shuffles falls with the "
        f"number of baseline minibatches: {'; '.join(spreads)}."
    )


def search(study: Study, family: str) -> str:
    trials = [row for row in study.search if row.family == family]
    chosen = next((row for row in trials if row.chosen), None)
    mine = [row for row in study.importances if row.family == family]
    words = [
        f"{row.sampler.upper()} {row.hyperparameter.replace('_', ' ')} {percent(row.importance, 0)}"
        for row in mine
    ]
    used = (
        f"Used: {chosen.sampler.upper()} with step size {number(chosen.lr, 3)}." if chosen else ""
    )
    shares = (
        f" Share of λ̂'s variance over the grid that each hyperparameter explains: {'; '.join(words)}."
        if words
        else ""
    )
    return (
        f"{len(trials)} settings tried for {family}, {sum(row.healthy for row in trials)} of them with healthy chains: a heat map of the "
        f"stability of λ̂ by step size and other settings, and effective draws per gradient against step size. {used}{shares}"
    )


def transfer(study: Study, limit: float) -> str:
    run = [row for row in study.transfer if row.status == "run"]
    factors = sorted({row.factor for row in run})
    lines = []
    for model in dict.fromkeys(row.model for row in run):
        found = {row.factor: row for row in run if row.model == model}
        lines.append(
            f"{model} "
            + ", ".join(number(found[factor].llc) for factor in factors if factor in found)
        )
    steps = ", ".join(f"× {number(factor, 2)}" for factor in factors)
    return (
        f"Left, λ̂ at step sizes {steps} of the chosen one, over that at the chosen one; λ̂ is {'; '.join(lines)}. Right, split R-hat of "
        f"the same chains, beside its limit of {number(limit)}."
    )


def quantisation(study: Study) -> str:
    rows = [row for row in study.quantisation if row.status == "run" and row.weights != "float32"]
    words = [
        f"{row.model} in {row.weights}, {row.moved}: {with_error(1000 * (row.rise or 0), 1000 * (row.rise_error or 0), 3)} millinats, "
        f"λ̂ {number(row.llc)}"
        for row in rows
    ]
    return f"By weight format, left the rise of the loss at w* against float32, right λ̂ over float32's. {'; '.join(words)}."


def diagnostics(row: Trace, estimate: Estimate) -> str:
    means = [sum(known) / len(known) for known in columns(row) if known]
    failed = f"{estimate.failed_chains} of {estimate.chains} chains failed"
    return (
        f"Chains of {row.model}. Above, the minibatch loss of {len(row.chains)} chains by step, burn-in shaded: their mean goes from "
        f"{number(means[0])} to {number(means[-1])} nats, and the loss at w* is {number(row.loss_at_w_star)}. Below, λ̂ of the draws so "
        f"far, which ends at {with_error(estimate.llc, estimate.standard_error)}, and λ̂ of each chain. {failed}."
    )


def columns(row: Trace) -> Sequence[list[float]]:
    """Losses by step, of the chains that have one."""
    return [
        [value for value in values if value is not None] for values in zip(*row.chains, strict=True)
    ]


def calibration(reference: Reference) -> str:
    outside = [row.target for row in reference.calibration if row.verdict == "outside"]
    missed = f"outside are {', '.join(outside)}" if outside else "none lies outside"
    wrong = [
        f"{row.mistake} {fixed(row.llc / row.expected)}"
        for row in reference.controls
        if row.expected
    ]
    return (
        f"Left, estimated against true λ of {len(reference.calibration)} models on logarithmic axes, along the diagonal. Right, the ratio "
        f"of estimate to truth with 95 % intervals: {missed}. Below them samplers with a mistake made on purpose: {', '.join(wrong)}."
    )
