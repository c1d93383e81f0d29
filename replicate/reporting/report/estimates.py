"""λ̂ of each model, by each estimator, and the minimum that it is of."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from statistics import fmean

from replicate.reporting.formatting import fixed, interval, number, probability, whole, with_error
from replicate.reporting.report.evidence import Study
from replicate.reporting.report.table import Table, not_run, row
from replicate.study.records import Estimate, Trace


def llc(study: Study) -> Table:
    rows = []
    for found in study.default:
        head = (found.model, whole(found.parameters), whole(found.sampled_parameters))
        if found.status == "not run":
            rows.append(not_run(*(head if found.parameters else head[:1])))
            continue
        health = (
            fixed(found.rhat),
            number(found.ess, 3),
            probability(found.drift_p),
            f"{found.failed_chains} of {found.chains}",
        )
        rows.append(
            row(
                *head,
                with_error(found.llc, found.standard_error),
                interval(found.interval),
                *health,
            )
        )
    columns = (
        "model",
        "parameters",
        "sampled",
        "λ̂ ± s.e.",
        "95 % interval",
        "R-hat",
        "eff. draws",
        "drift, p",
        "failed chains",
    )
    return Table(f"λ̂ of each model, {study.name} study, estimator controlled", columns, rows)


def estimators(study: Study) -> Table:
    note = "All from the same traces. The estimator published takes its baseline from one minibatch, and drops shuffles with λ̂ ≤ 0."
    return by_estimator(
        study,
        "λ̂ ± s.e. by estimator",
        lambda found: with_error(found.llc, found.standard_error),
        note,
    )


def by_estimator(
    study: Study, title: str, cell: Callable[[Estimate], str], note: str = ""
) -> Table:
    """A line a model, a column an estimator."""
    names = list(dict.fromkeys(found.estimator for found in study.estimates))
    rows = []
    for model in dict.fromkeys(found.model for found in study.estimates):
        mine = {found.estimator: found for found in study.estimates if found.model == model}
        if any(found.status == "not run" for found in mine.values()):
            rows.append(not_run(model))
        else:
            rows.append(row(model, *(cell(mine[name]) for name in names)))
    return Table(f"{title}, {study.name} study", ("model", *names), rows, note=note)


def minima(study: Study) -> Table:
    """What is known of w*, and how far from it the chains are."""
    drawn = {trace.model: sampled(trace) for trace in study.traces}
    trained = {found.model: found for found in study.training if found.status == "run"}
    rows = []
    for found in study.baselines:
        if found.status == "not run":
            rows.append(not_run(found.model))
            continue
        training = trained.get(found.model)
        floor = number(training.label_floor) if training else number(None)
        fall = with_error(found.descent, found.descent_error, 2)
        losses = (
            with_error(found.loss, found.standard_error),
            floor,
            number(drawn.get(found.model), 3),
        )
        rows.append(row(found.model, *losses, number(found.gradient_norm_squared, 2), fall))
    columns = (
        "model",
        "label loss at w* ± s.e.",
        "entropy floor",
        "of the chains",
        "squared gradient norm",
        "fall along minus it ± s.e.",
    )
    guesses = {
        found.vocabulary: number(log(found.vocabulary), 3)
        for found in study.windows
        if found.vocabulary
    }
    guessing = "; ".join(
        f"guessing all {whole(size)} tokens alike has {loss}" for size, loss in guesses.items()
    )
    note = (
        "Nats per label, over all examples. The floor is the entropy of what wrote the text, where that is known. The loss of the chains "
        f"tells how local λ̂ is{f': {guessing}' if guessing else ''}; the page of a model's chains says where they near that. "
        "The squared norm is unbiased, so that it may come out below 0. The fall is of held-out loss, along noise-free steps."
    )
    return Table(f"The minimum w*, {study.name} study", columns, rows, note=note)


def sampled(trace: Trace) -> float | None:
    """Mean loss of the draws of all chains; None where none is finite."""
    values = [
        loss
        for chain in trace.chains
        for step, loss in zip(trace.step, chain, strict=True)
        if step >= 0 and loss is not None
    ]
    return fmean(values) if values else None


def health(found: Estimate) -> str:
    """In a line."""
    failed = f"{found.failed_chains} of {found.chains} chains failed"
    value = with_error(found.llc, found.standard_error)
    return f"λ̂ {value}, R-hat {fixed(found.rhat)}, {number(found.ess, 3)} effective draws, drift p {probability(found.drift_p)}, {failed}"
