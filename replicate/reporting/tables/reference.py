"""Tables of claims, of the published figures, and of the models whose λ is known."""

from __future__ import annotations

from functools import partial

from replicate.reporting.formatting import (
    effect,
    effects,
    fixed,
    interval,
    number,
    out_of,
    percent,
    probability,
    shares,
    whole,
)
from replicate.reporting.results import Reference
from replicate.reporting.table import Column, Table, tabulate
from replicate.reporting.tables.models import LLC, RHAT
from replicate.study.records import Calibrated, JudgedClaim, NegativeControl

EFFECT = (
    Column("effect", "effect", effect),
    Column("95 % interval", "interval", effects),
    Column("p", "p_value", probability),
)
JUDGED = ("claim", "measure", "effect", "95 % interval", "p")  # columns of the paper's table


def claims(study: str, rows: list[JudgedClaim]) -> Table:
    """Tabulates the verdict on every claim."""
    return tabulate(
        f"The write-up's claims, {study}",
        ["claim"],
        [row.id for row in rows],
        {row.id: row for row in rows},
        [
            Column("title", "claim"),
            Column("verdict", "verdict"),
            Column("measure", "measure"),
            *EFFECT,
        ],
    )


def parts(study: str, claim: JudgedClaim) -> Table:
    """Tabulates the pieces of evidence of one claim."""
    return tabulate(
        f"Parts of {claim.id}, {study}",
        ["part"],
        [part.name for part in claim.parts],
        {part.name: part for part in claim.parts},
        [Column("verdict", lambda part: part.verdict or "not judged"), *EFFECT],
    )


def aggregates(reference: Reference) -> Table:
    """Compares the published averages with those recomputed from the published shuffles."""
    every = {
        model: sum(figures.mean) / len(figures.mean)
        for models in reference.figures.models.values()
        for model, figures in models.items()
    }
    return tabulate(
        "The averages that were published, from the shuffles that were published",
        ["model"],
        [row.model for row in reference.aggregates],
        {row.model: row for row in reference.aggregates},
        [
            Column("shuffles averaged", "kept shuffles", out_of),
            Column("λ̂ reported", "reported", fixed),
            Column("recomputed", "recomputed", fixed),
            Column("deviation reported", "reported_deviation", fixed),
            Column("deviation recomputed", "deviation_of_all", fixed),
            Column("to the last digit", lambda row: "agrees" if row.agrees else "differs"),
            Column("λ̂ over all shuffles", lambda row: every.get(row.model), fixed),
        ],
        "Tolerance: half a unit of the last published digit. Shuffles whose λ̂ is not above 0 were "
        "left out of the reported averages, but not of the deviations.",
    )


def calibration(reference: Reference) -> Table:
    """Tabulates λ̂ of the models whose λ is known."""
    return tabulate(
        "Models whose λ is known",
        ["target"],
        [row.target for row in reference.calibration],
        {row.target: row for row in reference.calibration},
        [
            Column("parameters", "parameters", whole),
            Column("λ", "true_llc", number),
            Column("exact sampler", _exact, str),
            LLC,
            Column("95 % interval", "interval", interval),
            RHAT,
            Column("gradients", "evaluations", whole),
            Column("verdict", "verdict"),
        ],
        "Exact sampler: what a sampler without error would give at this step size, localisation "
        "and nβ. λ̂ is judged against that where it is known, else against λ. From: the estimates "
        "at several nβ that λ̂ is extrapolated from.",
    )


def _exact(row: Calibrated) -> str:
    rungs = ", ".join(number(rung.llc, 3) for rung in row.ladder)
    return f"from {rungs}" if rungs else number(row.exact)


def coverage(reference: Reference) -> Table:
    """Tabulates how often the 95 % intervals contain the true value."""
    return tabulate(
        "How often the 95 % interval holds the truth",
        ["target"],
        [row.target for row in reference.coverage],
        {row.target: row for row in reference.coverage},
        [
            Column("λ", "true_llc", number),
            Column("intervals that do", "covered repeats", out_of),
            Column("share", "share", percent),
            Column("95 % interval of it", "interval", shares),
        ],
    )


def controls(reference: Reference) -> Table:
    """Tabulates whether samplers that are wrong on purpose are caught."""
    found = {(row.control, row.target): row for row in reference.controls}
    return tabulate(
        "Samplers that are wrong on purpose",
        ["negative control", "target"],
        found,
        found,
        [
            Column("expected", "expected", partial(number, digits=4)),
            LLC,
            Column("verdict", _caught),
        ],
        "The control none is the right sampler, which must pass.",
    )


def _caught(row: NegativeControl) -> str:
    return "caught" if row.caught else "passes" if row.control == "none" else "not caught"
