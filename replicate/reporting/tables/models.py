"""Makes the tables of a study's models: λ̂, w*, training, text, cost and provenance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import log

from replicate.reporting.formatting import DASH, fixed, number, out_of, probability, with_error
from replicate.reporting.results import Study
from replicate.reporting.table import Table, tabulate
from replicate.study.published import Figures
from replicate.study.records import Estimate, Provenance

SHOWN = 12  # the number of a hash's digits that a table shows


def estimates(study: Study, figures: Figures) -> Table:
    """Tabulates λ̂ of each model by the estimator that claims are judged by, and the published λ̂."""
    published = {
        model: row.reported for models in figures.models.values() for model, row in models.items()
    }
    return tabulate("estimates", study.plan.models, study.default, study=study, published=published)


def regimes(study: Study) -> Table:
    """Tabulates what λ̂ of each model measures at its setting."""
    return tabulate("regimes", study.plan.models, study.default, study=study)


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
    return tabulate("estimators", study.plan.models, by_estimator(study), study=study)


def efficiency(study: Study) -> Table:
    """Tabulates each estimator's variance, and the gradients it needs for an error of 1 %."""
    return tabulate("efficiency", study.plan.models, by_estimator(study), study=study)


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
    whole = [family.name for family in study.plan.families if family.loss == "tokens"]
    return tabulate(
        "minimum",
        study.plan.models,
        {row.model: row for row in study.baselines},
        study=study,
        whole=whole,
        distance=locality(study),
        floors={
            row.model: row.floor if row.family in whole else row.label_floor
            for row in study.training
        },
    )


def training(study: Study) -> Table:
    """Tabulates the steps and the final losses of the control models' training."""
    trained = [model for model, family in study.plan.models.items() if not family.repositories]
    return tabulate("training", trained, {row.model: row for row in study.training}, study=study)


def text(studies: Sequence[Study]) -> Table:
    """Tabulates the reviews that each family keeps, its vocabulary and its window length."""
    families = dict.fromkeys(family.name for study in studies for family in study.plan.families)
    found = {row.family: row for study in studies for row in study.windows}
    return tabulate("text", families, found)


def cost(study: Study) -> Table:
    """Tabulates the numbers of chains and of minibatch gradients of each experiment."""
    parts = {
        "search": study.search,
        "estimate": study.default.values(),
        "curve": study.curve,
        "transfer": study.transfer,
        "protocol of 2023": study.original,
        "weight formats": study.quantisation,
    }
    chains: Counter[tuple[str, str]] = Counter()
    gradients: Counter[tuple[str, str]] = Counter()
    for part, rows in parts.items():
        for row in rows:
            chains[part, row.family] += row.chains
            gradients[part, row.family] += row.chains * row.steps
    compared = {study.plan.models[model].name for model, _, _ in study.plan.formats}
    followed = {family.name for family in study.plan.families if family.curve}
    some = {"weight formats": compared, "curve": followed}
    planned = [
        (part, family.name)
        for family in study.plan.families
        for part in parts
        if family.name in some.get(part, {family.name})
    ]
    total = gradients.total()
    return tabulate("cost", planned, chains, study=study, gradients=gradients, total=total)


def provenance(study: Study) -> Table:
    """Tabulates the weights, windows, traces and device of each model's chains."""
    found = {row.model: row for row in study.provenance}
    shown = {"shown": SHOWN, "source": _source, "short": _short}
    return tabulate("provenance", study.plan.models, found, study=study, **shown)


def _source(row: Provenance) -> str:
    if row.repository is None:
        return "trained here"
    return f"{row.repository} at {_short(row.revision)}" if row.revision else row.repository


def _short(*hashes: str | None) -> str:
    return ", ".join((each or DASH)[:SHOWN] for each in hashes)
