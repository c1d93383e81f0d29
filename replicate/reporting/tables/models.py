"""Tables of a study's models: λ̂, w*, training, text, cost and provenance."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import log

from replicate.estimation.estimators import NAMES
from replicate.reporting.formatting import (
    fixed,
    interval,
    number,
    out_of,
    percent,
    probability,
    whole,
    with_error,
)
from replicate.reporting.results import ESTIMATOR, Study
from replicate.reporting.table import Column, Table, tabulate
from replicate.study.published import Figures
from replicate.study.records import Estimate, Provenance

SHOWN = 12  # digits of a hash that a table shows
LLC = Column("λ̂ ± s.e.", "llc standard_error", with_error)
RHAT = Column("R-hat", "rhat", fixed)
DIVERGED = Column("diverged chains", "diverged_chains chains", out_of)


def estimates(study: Study, figures: Figures) -> Table:
    """Tabulates λ̂ of each model by the estimator that claims are judged by, and the published λ̂."""
    published = {
        model: row.reported for models in figures.models.values() for model, row in models.items()
    }
    planned = [(model, published.get(model)) for model in study.plan.models]
    return tabulate(
        f"λ̂ of each model, {study.name} study, estimator {ESTIMATOR}",
        ["model", Column("published", format=partial(number, digits=6))],
        planned,
        {key: study.default.get(key[0]) for key in planned},
        [
            Column("parameters", "parameters", whole),
            Column("sampled", "sampled_parameters", whole),
            LLC,
            Column("95 % interval", "interval", interval),
            RHAT,
            Column("effective draws", "ess", partial(number, digits=3)),
            Column("drift, p", "drift_p", probability),
            DIVERGED,
        ],
        "Published: the average over shuffles with λ̂ > 0, at another nβ.",
    )


def health(row: Estimate) -> str:
    """Returns λ̂ and the health of its chains in one line of text."""
    value = with_error((row.llc, row.standard_error))
    diverged = out_of((row.diverged_chains, row.chains))
    return (
        f"λ̂ {value}; R-hat {fixed(row.rhat, 3)}, {number(row.ess, 3)} effective draws, "
        f"drift p {probability(row.drift_p)}, {diverged} chains diverged"
    )


def by_estimator(study: Study) -> dict[str, dict[str, Estimate]]:
    """Returns the estimates of every model that was run, as model → estimator → λ̂."""
    found: dict[str, dict[str, Estimate]] = {}
    for row in study.estimates:
        found.setdefault(row.model, {})[row.estimator] = row
    return found


def estimators(study: Study) -> Table:
    """Tabulates λ̂ of each model by every estimator."""
    return tabulate(
        f"λ̂ ± s.e. by estimator, {study.name} study",
        ["model"],
        study.plan.models,
        by_estimator(study),
        [Column(name, lambda row, name=name: LLC.of(row[name]), with_error) for name in NAMES],
        "All from the same traces. The estimator published takes its baseline from one minibatch, "
        "and drops shuffles with λ̂ ≤ 0.",
    )


def efficiency(study: Study) -> Table:
    """Tabulates the variance of each estimator and the gradient evaluations that it needs."""
    kinds = (("variance", "variance_ratio"), ("gradients", "evaluations"))
    columns = [
        Column(
            f"{name}, {words}",
            lambda row, name=name, field=field: getattr(row[name], field),
            partial(number, digits=2),
        )
        for words, field in kinds
        for name in NAMES
    ]
    return tabulate(
        f"What an estimate costs, {study.name} study",
        ["model"],
        study.plan.models,
        by_estimator(study),
        columns,
        f"Variance over shuffles, over that of {ESTIMATOR}; and the gradient evaluations that a "
        "standard error of 1 % of λ̂ would take.",
    )


def locality(study: Study) -> dict[str, tuple[float, float | None]]:
    """Measures how far from w* each model's chains are.

    Returns:
        For each model, the mean loss of its chains, L(w*) + λ̂/nβ (nats per label), and λ̂/nβ as a
        share of the rise from L(w*) to the loss of guessing all tokens alike (None if the
        vocabulary is unknown).
    """
    vocabulary = {row.family: row.vocabulary for row in study.windows}
    found: dict[str, tuple[float, float | None]] = {}
    for row in study.baselines:
        estimate = study.default.get(row.model)
        if estimate is None or estimate.llc is None or row.loss is None:
            continue
        rise, tokens = estimate.llc / estimate.nbeta, vocabulary.get(row.family)
        found[row.model] = row.loss + rise, rise / (log(tokens) - row.loss) if tokens else None
    return found


def minimum(study: Study) -> Table:
    """Tabulates the loss and its gradient at w*, and how far from w* the chains are."""
    far = locality(study)
    floors = {row.model: row.label_floor for row in study.training}
    return tabulate(
        f"The minimum w*, {study.name} study",
        ["model"],
        study.plan.models,
        {row.model: row for row in study.baselines},
        [
            Column("label loss at w* ± s.e.", "loss standard_error", with_error),
            Column("entropy floor", lambda row: floors.get(row.model), number),
            Column(
                "loss of the chains",
                lambda row: far.get(row.model, (None, None))[0],
                partial(number, digits=3),
            ),
            Column("way to guessing", lambda row: far.get(row.model, (None, None))[1], percent),
            Column("squared gradient norm", "gradient_norm_squared", partial(number, digits=2)),
            Column(
                "fall along minus it ± s.e.",
                "descent descent_error",
                partial(with_error, digits=2),
            ),
        ],
        "Nats per label, over all examples. The floor is the entropy of what wrote the text, where "
        "that is known. The way to guessing: how far the loss of the chains is on the way from w* "
        "to guessing all tokens alike. The squared norm is unbiased and may be below 0. The fall "
        "is of held-out loss, along steps without noise.",
    )


def training(study: Study) -> Table:
    """Tabulates how far the training of the control models got."""
    trained = [model for model, family in study.plan.models.items() if not family.repositories]
    return tabulate(
        f"Training of the control models, {study.name} study",
        ["model"],
        trained,
        {row.model: row for row in study.training},
        [
            Column("steps", "steps", whole),
            Column("loss", "loss", number),
            Column("floor", "floor", number),
            Column("label loss", "label_loss", number),
            Column("label floor", "label_floor", number),
        ],
        "Nats per token.",
    )


def text(studies: Sequence[Study]) -> Table:
    """Tabulates the reviews that each family selects, its vocabulary, and its windows' length."""
    return tabulate(
        "The text",
        ["family"],
        dict.fromkeys(family.name for study in studies for family in study.plan.families),
        {row.family: row for study in studies for row in study.windows},
        [
            Column("reviews", "reviews", whole),
            Column("kept", "kept", whole),
            Column("dropped", "dropped", whole),
            Column("padded labels", "padded_labels", whole),
            Column("vocabulary", "vocabulary", whole),
            Column("tokens of a window", "length", whole),
        ],
    )


def cost(study: Study) -> Table:
    """Tabulates the chains of each experiment and their gradients of a minibatch."""
    parts = {
        "search": study.search,
        "estimate": study.default.values(),
        "transfer": study.transfer,
        "protocol of 2023": study.original,
        "weight formats": study.quantisation,
    }
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for part, rows in parts.items():
        for row in rows:
            chains, gradients = found.get((part, row.family), (0, 0))
            steps = row.chains * row.steps
            found[part, row.family] = chains + row.chains, gradients + steps
    compared = {study.plan.models[model].name for model, _, _ in study.plan.formats}
    planned = [
        (part, family.name)
        for family in study.plan.families
        for part in parts
        if part != "weight formats" or family.name in compared
    ]
    total = sum(gradients for _, gradients in found.values())
    return tabulate(
        f"Gradient evaluations, {study.name} study",
        ["part", "family"],
        planned,
        found,
        [
            Column("chains", lambda counts: counts[0], whole),
            Column("gradients", lambda counts: counts[1], whole),
        ],
        f"{whole(total)} gradients of a minibatch in all." if total else "",
    )


def provenance(study: Study) -> Table:
    """Tabulates the weights, windows, traces and device of each model's chains."""
    return tabulate(
        f"What each result is from, {study.name} study",
        ["model"],
        study.plan.models,
        {row.model: row for row in study.provenance},
        [
            Column("from", _source),
            Column("windows", lambda row: _short(row.windows)),
            Column("weights", lambda row: ", ".join(map(_short, (row.weights or {}).values()))),
            Column("traces", lambda row: _short(row.traces)),
            Column("sampled on", "device"),
        ],
        f"The first {SHOWN} digits of SHA-256; whole, with those of the configuration, in "
        f"results/{study.name}/provenance.json.",
    )


def _source(row: Provenance) -> str:
    if row.repository is None:
        return "trained here"
    return f"{row.repository} at {_short(row.revision)}" if row.revision else row.repository


def _short(value: str | None) -> str:
    return (value or "–")[:SHOWN]
