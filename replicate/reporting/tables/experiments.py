"""Makes the tables of the experiments: search, curve, transfer, formats, protocol of 2023."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean, stdev

import numpy as np

from replicate.reporting.results import Reference, Study
from replicate.reporting.table import Table, tabulate
from replicate.study import published
from replicate.study.records import Analysis, Quantised
from replicate.study.reproduction import Comparison, Outcome, compared, judge


def settings(study: Study) -> Table:
    """Tabulates the sampler settings that the rules choose, among all settings that were tried."""
    found = {
        (trial.family, ", ".join([*trial.chosen_by, *["used"] * trial.chosen])): trial
        for trial in study.search
        if trial.chosen_by
    }
    searched = {trial.family for trial in study.search}
    planned: list[tuple[str, ...]] = []
    for family in study.plan.families:
        chosen = [key for key in found if key[0] == family.name]
        planned += chosen if family.name in searched else [(family.name,)]
    return tabulate("settings", planned, found, study=study)


def importances(study: Study) -> Table:
    """Tabulates how important each hyperparameter is for λ̂."""
    found = {(row.family, row.sampler, row.hyperparameter): row for row in study.importances}
    return tabulate("importances", found or [(study.plan.full.name,)], found, study=study)


def curve(study: Study) -> Table:
    """Tabulates λ̂ of the models that are followed along nβ and γ."""
    planned = [key for family in study.plan.families for key in family.curve]
    found = {(row.model, row.nbeta, row.localization): row for row in study.curve}
    return tabulate("curve", planned, found, study=study)


def transfer(study: Study) -> Table:
    """Tabulates λ̂ of every model at multiples of the chosen step size."""
    planned = [key for family in study.plan.families for key in family.transfer]
    found = {(row.model, row.factor): row for row in study.transfer}
    return tabulate("transfer", planned, found, study=study)


def quantisation(study: Study) -> Table:
    """Tabulates the loss at w* and λ̂ of each model in every weight format."""
    found = {(row.model, row.moved, row.weights): row for row in study.quantisation}
    return tabulate("quantisation", study.plan.formats, found, study=study, change=_change)


def _change(row: Quantised) -> float | None:
    changes = [value for value in row.changes if value is not None]
    return fmean(changes) if changes and row.weights != "float32" else None


def original(study: Study) -> Table:
    """Tabulates λ̂ by the 2023 protocol, and how much of its variance the baseline explains."""
    planned = [model for family in study.plan.families for model in family.original]
    most = max((row.batches[-1] for row in study.original), default=32)
    found = {row.model: row for row in study.original}
    return tabulate("original", planned, found, study=study, most=most)


def anova(analyses: Mapping[str, Analysis | None]) -> Table:
    """Tabulates the shares of the variance of λ̂ that shuffles and models explain."""
    return tabulate("anova", analyses, analyses)


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
            models = [model for model in family.models if model in shuffles]
            llc_SxM = np.array([shuffles[model] for model in models], float).T
            if len(models) > 1:
                llc_SxM = llc_SxM[np.isfinite(llc_SxM).all(1)]
            enough = len(models) > 1 and len(llc_SxM) > 1
            found[f"{study.name}, {family.name}, {words}"] = (
                published.analysis(family.name, models, llc_SxM) if enough else None
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
    found = {pair.name: pair for pair in judge(pairs, level) if pair.a is not None}
    return tabulate("replicated", theirs, found, study=study, published=theirs, level=level)


def _mean(values: Sequence[float | None]) -> Outcome:
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return Outcome(known[0] if known else None)
    return Outcome(fmean(known), stdev(known) / sqrt(len(known)), len(known) - 1)
