"""Published against replicated: the published averages recomputed, the same protocol on the same
models, and where λ̂'s variance lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev

import numpy as np

from replicate.reporting.formatting import DASH, fixed, number, percent, probability, with_error
from replicate.reporting.report.evidence import Reference, Study
from replicate.reporting.report.table import Row, Table, not_run, row
from replicate.study import published
from replicate.study import reproduction as verification
from replicate.study.findings import Found
from replicate.study.records import Analysis
from replicate.study.reproduction import Comparison


def recomputed(reference: Reference) -> Table:
    rows = []
    for found in reference.aggregates:
        reported, again = fixed(found.reported), fixed(found.recomputed)
        every = fmean(reference.figures.models[found.family][found.model].mean)
        agrees = "agrees" if found.agrees else "differs"
        rows.append(
            row(
                found.model,
                reported,
                again,
                agrees,
                f"{found.kept} of {found.shuffles}",
                fixed(every),
            )
        )
    columns = (
        "model",
        "λ̂ reported",
        "recomputed",
        "to the last digit",
        "shuffles averaged",
        "λ̂ over all shuffles",
    )
    note = "Tolerance: half a unit of the last published digit. Shuffles whose λ̂ is not above 0 were left out of what was reported."
    return Table(
        "The averages that were published, from the shuffles that were published",
        columns,
        rows,
        note=note,
    )


def replicated(study: Study, reference: Reference, level: float) -> Table:
    """Mean over all shuffles by the protocol of 2023, published and here."""
    ours = {found.model: found for found in study.original}
    pairs = []
    for models in reference.figures.models.values():
        for model, figures in models.items():
            mine = (
                [value for value in ours[model].groups if value is not None]
                if model in ours
                else []
            )
            here = mean(mine) if model in ours and ours[model].status == "run" else None
            pairs.append(
                verification.compared(
                    Comparison(study.name, "λ̂", model, "protocol of 2023", here, mean(figures.mean))
                )
            )
    rows = []
    for pair in verification.judge(pairs, level):
        theirs = told(pair.reference)
        if pair.status == "not run":
            rows.append(not_run(pair.name, theirs))
        else:
            p = "" if pair.p_value is None else f", p = {probability(pair.p_value)}"
            rows.append(
                row(pair.name, theirs, told(pair.here), f"{number(pair.apart, 2)}{p}", pair.status)
            )
    columns = (
        "model",
        "published λ̂",
        "replicated λ̂",
        "difference, in standard errors",
        "within tolerance",
    )
    note = (
        f"Means over all shuffles ± one standard error between shuffles. Tolerance: what Welch's t test and Holm's rule let two runs of "
        f"the same protocol differ by at the level {number(level)}."
    )
    return Table(
        f"The protocol of 2023 on the models of 2023, {study.name} study", columns, rows, note=note
    )


def mean(values: Sequence[float]) -> Found:
    """With its standard error."""
    if len(values) < 2:
        return Found(values[0] if values else None)
    return Found(fmean(values), stdev(values) / sqrt(len(values)), len(values) - 1)


def told(found: Found | None) -> str:
    assert found is not None
    return with_error(found.value, found.error) if isinstance(found.value, float) else DASH


def variance(studies: Sequence[Study], reference: Reference) -> Table:
    """Shares of the sum of squares of λ̂ over shuffles and models, published and here, by the old
    protocol and by ours.
    """
    rows = [share(f"published, {found.family}", found) for found in reference.anova]
    for study in studies:
        for family in study.families:
            protocol = {
                found.model: found.groups
                for found in study.original
                if found.family == family and found.status == "run"
            }
            ours = {found.model: found.groups for found in study.run if found.family == family}
            for words, groups in (("protocol of 2023", protocol), ("controlled", ours)):
                rows.append(analysed(f"{study.name}, {family}, {words}", family, groups))
    columns = ("λ̂ of", "shuffles", "models", "residual", "F of models", "p")
    note = "Two-way analysis of variance, shuffle × model. Between shuffles lies chance; between models what was to be shown."
    return Table(
        "Where the variance of λ̂ lies: in the shuffles of the text, or in the models",
        columns,
        rows,
        note=note,
    )


def analysed(head: str, family: str, groups: dict[str, list[float | None]]) -> Row:
    """Without the shuffles that lack a model."""
    if len(groups) < 2:
        return not_run(head)
    llc_GxM = np.array(list(groups.values()), float).T
    llc_GxM = llc_GxM[np.isfinite(llc_GxM).all(1)]
    return (
        share(head, published.analysis(family, list(groups), llc_GxM))
        if len(llc_GxM) > 1
        else not_run(head)
    )


def share(head: str, found: Analysis) -> Row:
    shares = (percent(value) for value in (found.shuffle, found.model, found.residual))
    return row(head, *shares, number(found.f, 3), probability(found.p_value))


def protocol(study: Study) -> Table:
    """The old protocol's λ̂, and how much of it is luck."""
    rows = []
    for found in study.original:
        values = [value for value in found.groups if value is not None]
        if found.status == "not run" or not values:
            rows.append(not_run(found.model))
            continue
        span = f"{number(min(values))} to {number(max(values))}"
        spread = (number(found.spread[0], 3), number(found.spread[-1], 3))
        shares = (percent(found.padded_labels, 0), percent(found.padded_variance, 0))
        rows.append(row(found.model, span, fixed(found.r_squared), *spread, *shares))
    most = max((found.batches[-1] for found in study.original if found.batches), default=32)
    columns = (
        "model",
        "λ̂ over shuffles",
        "R² of luck",
        "spread, 1 batch",
        f"spread, {most} batches",
        "padded labels",
        "their variance",
    )
    note = (
        "R² of luck: the share of the variance of λ̂ over shuffles that the loss of one minibatch at w* explains, with no chain at all. "
        "Spread: standard deviation over shuffles, by the number of minibatches in the baseline. "
        "Padded labels: end-of-text tokens that a short review was filled up with, and their share of the variance of a minibatch's loss."
    )
    return Table(
        f"The protocol of 2023, to the letter, {study.name} study", columns, rows, note=note
    )
