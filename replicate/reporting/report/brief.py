"""Writes the first page from the records alone: what was found, how far it can be trusted, and
what was not run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from replicate.reporting.formatting import fixed, interval, number, percent, span, whole
from replicate.reporting.results import Reference, Study
from replicate.study.records import JudgedClaim


def cited(claim: JudgedClaim) -> bool:
    """Returns whether all evidence for a verdict is cited from the literature, without a test."""
    return bool(claim.evidence) and all(each.file.endswith(".bib") for each in claim.evidence)


def tally(claims: Sequence[JudgedClaim]) -> str:
    """Returns a text on how many claims have each verdict."""
    counts = Counter(row.verdict + " by citation" * cited(row) for row in claims)
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items())


def found(studies: Sequence[Study], reference: Reference) -> list[str]:
    """Returns sentences on what caused the published λ̂, and on λ̂ with an exact baseline."""
    lines = [
        f"As published, {percent(row.shuffle)} of the variance of λ̂ of {row.family} lies between "
        f"shuffles of the text and {percent(row.model)} between models: the baseline was one "
        "minibatch, and its error moved all models together."
        for row in reference.anova[:1]
    ]
    for study in studies:
        if study.original:
            lines.append(
                f"The same protocol on the models of the {study.name} study: the error of that "
                f"baseline explains {span((row.r_squared for row in study.original), 2)} of the "
                f"variance of λ̂ over shuffles (R², {len(study.original)} models)."
            )
        for family in study.plan.families:
            rows = [row for row in study.default.values() if row.family == family.name]
            if len(rows) > 1:
                first, last = rows[0], rows[-1]
                lines.append(
                    "With an exact baseline and a control variate, λ̂ of "
                    f"{family.name} goes from {number(first.llc)} to {number(last.llc)} between "
                    f"{whole(first.parameters)} and {whole(last.parameters)} parameters (95 % "
                    f"intervals {interval(first.interval)} and {interval(last.interval)})."
                )
    return lines


def trust(studies: Sequence[Study], reference: Reference) -> list[str]:
    """Returns sentences on calibration, coverage, negative controls and health of chains."""
    verdicts = Counter(row.verdict for row in reference.calibration)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    wrong = [row for row in reference.controls if row.control != "none"]
    lines = [f"Of {verdicts.total()} models whose λ is known the estimates are: {counts}."]
    lines += [
        f"{row.covered} of {row.repeats} intervals of a nominal 95 % hold the truth "
        f"({percent(row.share)})."
        for row in reference.coverage
    ]
    lines.append(
        f"{sum(row.caught for row in wrong)} of {len(wrong)} samplers that are wrong on purpose "
        "are caught."
    )
    for study in studies:
        rows = study.default.values()
        if rows:
            lines.append(
                f"In the {study.name} study the greatest R-hat is "
                f"{fixed(max(row.rhat or 0 for row in rows))}, and "
                f"{sum(row.diverged_chains for row in rows)} of {sum(row.chains for row in rows)} "
                "chains diverged."
            )
    return lines


def missing(study: Study) -> str:
    """Returns a sentence on the planned models that have not run."""
    if not study.missing:
        return f"{study.name}: everything that it asks for has run."
    claims = [claim.id for claim in study.claims if claim.verdict == "not run"]
    without = f" Without them it has no verdict on {', '.join(claims)}." if claims else ""
    return f"{study.name}: no λ̂ of {', '.join(study.missing)}.{without}"
