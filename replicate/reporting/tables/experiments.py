"""Tables of the experiments: search, transfer, weight formats and the protocol of 2023."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import sqrt
from statistics import fmean, stdev

import numpy as np

from replicate.reporting.formatting import (
    DASH,
    fixed,
    number,
    percent,
    probability,
    shares,
    span,
    whole,
    with_error,
)
from replicate.reporting.results import Reference, Study
from replicate.reporting.table import Column, Table, tabulate
from replicate.reporting.tables.models import DIVERGED, LLC, RHAT
from replicate.study import published
from replicate.study.records import Analysis, Quantised
from replicate.study.reproduction import Comparison, Outcome, compared, judge


def settings(study: Study) -> Table:
    """Tabulates the sampler settings that the rules choose among all that were tried."""
    found = {
        (trial.family, ", ".join([*trial.chosen_by, *["used"] * trial.chosen])): trial
        for trial in study.search
        if trial.chosen_by
    }
    searched = {trial.family for trial in study.search}
    planned: list[tuple[str, ...]] = []
    for family in study.plan.families:
        mine = [key for key in found if key[0] == family.name]
        planned += mine if family.name in searched else [(family.name,)]
    return tabulate(
        f"Settings that the rules choose, {study.name} study",
        ["family", "rule"],
        planned,
        found,
        [
            Column("sampler", lambda trial: trial.sampler.upper()),
            Column("ε", "lr", number),
            Column("μ", "weight_decay", number),
            Column("γ", "localization", number),
            Column("box", lambda trial: trial.bounding_box or "none", _or_word),
            Column("λ̂ ± s.d.", "mean standard_deviation", with_error),
            Column("mean / s.d.", "stability", partial(number, digits=3)),
            Column("draws per gradient", "efficiency", partial(number, digits=2)),
            Column("expected error", "expected_error", percent),
        ],
        "Mean and standard deviation of λ̂ across chains; effective draws per gradient "
        "evaluation; the expected relative error of λ̂, of step size and Monte Carlo together.",
    )


def _or_word(value: float | str) -> str:
    return value if isinstance(value, str) else number(value)


def importances(study: Study) -> Table:
    """Tabulates how important each hyperparameter is for λ̂."""
    found = {(row.family, row.sampler, row.hyperparameter): row for row in study.importances}
    return tabulate(
        f"Which hyperparameter matters, {study.name} study",
        ["family", "sampler", "hyperparameter"],
        found or [(study.plan.full.name,)],
        found,
        [
            Column("importance", "importance", percent),
            Column("95 % interval", "interval", shares),
        ],
        "Share of the variance of λ̂ over the grid (fANOVA), with bootstrap intervals over trials.",
    )


def transfer(study: Study) -> Table:
    """Tabulates λ̂ of every model at multiples of the chosen step size."""
    return tabulate(
        f"The chosen step size on every model, {study.name} study",
        ["model", Column("step size", format=lambda factor: f"× {number(factor, 2)}")],
        [key for family in study.plan.families for key in family.transfer],
        {(row.model, row.factor): row for row in study.transfer},
        [
            Column("ε", "lr", partial(number, digits=3)),
            LLC,
            RHAT,
            Column("drift, p", "drift_p", probability),
            DIVERGED,
        ],
    )


def quantisation(study: Study) -> Table:
    """Tabulates the loss at w* and λ̂ of each model in every weight format."""
    return tabulate(
        f"Weight formats, {study.name} study",
        ["model", "moved", "weights"],
        study.plan.formats,
        {(row.model, row.moved, row.weights): row for row in study.quantisation},
        [
            Column("parameters moved", "sampled_parameters", whole),
            Column("loss at w*", "loss", number),
            Column("rise, millinats ± s.e.", _rise, partial(with_error, digits=3)),
            Column("squared gradient norm", "gradient_norm_squared", partial(number, digits=2)),
            LLC,
            Column("change of λ̂", _change, percent),
            RHAT,
        ],
        "Batches and noise are the same in every format; changes are from float32 with the same "
        "parameters moving.",
    )


def _rise(row: Quantised) -> tuple[float | None, float | None]:
    if row.rise is None or row.weights == "float32":
        return None, None
    return 1000 * row.rise, 1000 * (row.rise_error or 0)


def _change(row: Quantised) -> float | None:
    changes = [value for value in row.changes if value is not None]
    return fmean(changes) if changes and row.weights != "float32" else None


def original(study: Study) -> Table:
    """Tabulates λ̂ by the 2023 protocol, and how much of it the error of its baseline explains."""
    most = max((row.batches[-1] for row in study.original), default=32)
    return tabulate(
        f"The protocol of 2023, to the letter, {study.name} study",
        ["model"],
        [model for family in study.plan.families for model in family.original],
        {row.model: row for row in study.original},
        [
            Column("λ̂ over shuffles", "shuffles", span),
            Column("R² of the baseline", "r_squared", fixed),
            Column("spread, 1 batch", lambda row: row.spread[0], partial(number, digits=3)),
            Column("spread, most batches", lambda row: row.spread[-1], partial(number, digits=3)),
            Column("padded labels", "padded_labels", partial(percent, places=0)),
            Column("their variance", "padded_variance", partial(percent, places=0)),
        ],
        "R² of the baseline: the share of the variance of λ̂ over shuffles that the loss of one "
        "minibatch at w* explains, although no chain is needed for it. Spread: standard deviation "
        f"over shuffles, with 1 and with {most} minibatches in the baseline. Padded labels: tokens "
        "that fill up a short review, and their share of the variance of a minibatch's loss.",
    )


def anova(analyses: Mapping[str, Analysis | None]) -> Table:
    """Tabulates the shares of the variance of λ̂ that shuffles and models explain."""
    return tabulate(
        "Where the variance of λ̂ lies: in the shuffles of the text, or in the models",
        ["λ̂ of"],
        analyses,
        analyses,
        [
            Column("shuffles", "shuffle", percent),
            Column("models", "model", percent),
            Column("residual", "residual", percent),
            Column("F of models", "f", partial(number, digits=3)),
            Column("p", "p_value", probability),
            Column("Page's p", "page_p", probability),
        ],
        "Two-way analysis of variance of λ̂, shuffle × model, and Page's test that λ̂ rises with "
        "size. What lies between shuffles is chance; the study was about what lies between models.",
    )


def analyses(studies: Sequence[Study], reference: Reference) -> dict[str, Analysis | None]:
    """Returns the analyses of variance of the published figures, and of each family of the studies
    by both protocols. None stands for an analysis that was not run.
    """
    found: dict[str, Analysis | None] = {f"published, {r.family}": r for r in reference.anova}
    for study, family in [(each, family) for each in studies for family in each.plan.families]:
        protocols = {
            "protocol of 2023": {row.model: row.shuffles for row in study.original},
            "controlled": {model: row.shuffles for model, row in study.default.items()},
        }
        for words, shuffles in protocols.items():
            mine = {model: shuffles[model] for model in family.models if model in shuffles}
            llc_SxM = np.array(list(mine.values()), float).T
            if len(mine) > 1:
                llc_SxM = llc_SxM[np.isfinite(llc_SxM).all(1)]
            enough = len(mine) > 1 and len(llc_SxM) > 1
            found[f"{study.name}, {family.name}, {words}"] = (
                published.analysis(family.name, list(mine), llc_SxM) if enough else None
            )
    return found


def replicated(study: Study, reference: Reference, level: float) -> Table:
    """Compares the means of λ̂ over all shuffles by the 2023 protocol, published and replicated."""
    ours = {row.model: _mean(row.shuffles) for row in study.original}
    theirs = {
        model: _mean(figures.mean)
        for models in reference.figures.models.values()
        for model, figures in models.items()
        if model in study.plan.models
    }
    pairs = [
        compared(Comparison(study.name, "λ̂", model, "protocol of 2023", ours.get(model), mean))
        for model, mean in theirs.items()
    ]
    judged = {(pair.name, pair.b): pair for pair in judge(pairs, level) if pair.a is not None}
    return tabulate(
        f"The protocol of 2023 on the models of 2023, {study.name} study",
        ["model", Column("published λ̂", format=_outcome)],
        theirs.items(),
        judged,
        [
            Column("replicated λ̂", "a", _outcome),
            Column("standard errors apart", "apart", partial(number, digits=2)),
            Column("p", "p_value", probability),
            Column("within tolerance", "status"),
        ],
        "Means over all shuffles ± one standard error between shuffles. Tolerance: what Welch's t "
        "test and Holm's rule let two runs of the same protocol differ by at the level "
        f"{number(level)}.",
    )


def _mean(values: Sequence[float | None]) -> Outcome:
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return Outcome(known[0] if known else None)
    return Outcome(fmean(known), stdev(known) / sqrt(len(known)), len(known) - 1)


def _outcome(outcome: Outcome) -> str:
    value = outcome.value
    return DASH if isinstance(value, str) else with_error((value, outcome.error))
