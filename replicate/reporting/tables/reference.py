"""Makes the tables of claims, of the published figures, and of the models whose λ is known."""

from __future__ import annotations

from replicate.reporting.results import Reference
from replicate.reporting.table import Table, tabulate
from replicate.study.records import JudgedClaim

JUDGED = ("claim", "measure", "effect", "95 % interval", "p")  # columns of the paper's table


def claims(study: str, rows: list[JudgedClaim]) -> Table:
    """Tabulates the verdict on every claim."""
    found = {row.id: row for row in rows}
    return tabulate("claims", found, found, study=study)


def parts(study: str, claim: JudgedClaim) -> Table:
    """Tabulates the pieces of evidence of one claim."""
    found = {part.name: part for part in claim.parts}
    return tabulate("parts", found, found, study=study, claim=claim)


def aggregates(reference: Reference) -> Table:
    """Compares the published averages with those recomputed from the published shuffles."""
    found = {row.model: row for row in reference.aggregates}
    means = {
        model: sum(figures.mean) / len(figures.mean)
        for models in reference.figures.models.values()
        for model, figures in models.items()
    }
    return tabulate("aggregates", found, found, means=means)


def calibration(reference: Reference) -> Table:
    """Tabulates λ̂ of the models whose λ is known."""
    found = {row.target: row for row in reference.calibration}
    return tabulate("calibration", found, found)


def coverage(reference: Reference) -> Table:
    """Tabulates how often the 95 % intervals of short runs contain what they should."""
    found = {(row.target, row.setting): row for row in reference.coverage}
    return tabulate("coverage", found, found)


def controls(reference: Reference) -> Table:
    """Tabulates whether samplers that are wrong on purpose are caught."""
    found = {(row.control, row.target): row for row in reference.controls}
    return tabulate("controls", found, found)
