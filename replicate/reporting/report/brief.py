"""Writes sentences on the verdicts, and on what was not run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from replicate.reporting.results import Study
from replicate.study.records import JudgedClaim


def cited(claim: JudgedClaim) -> bool:
    """Returns whether a verdict rests on the literature alone, without a test of its own."""
    return bool(claim.evidence) and all(each.file.endswith(".bib") for each in claim.evidence)


def tally(claims: Iterable[JudgedClaim]) -> str:
    """Returns a text on how many claims have each verdict."""
    return counted(row.verdict + " by citation" * cited(row) for row in claims)


def counted(verdicts: Iterable[str]) -> str:
    """Returns a text on how often each verdict occurs."""
    return ", ".join(f"{count} {verdict}" for verdict, count in Counter(verdicts).items())


def missing(study: Study) -> str:
    """Returns a sentence on the planned models that have no λ̂, and on unfinished experiments."""
    lacking = [f"no λ̂ of {', '.join(study.missing)}"] if study.missing else []
    lacking += [f"not all of {', '.join(study.unfinished)}"] if study.unfinished else []
    run = "; ".join(lacking) or "everything that it asks for has run"
    claims = [claim.id for claim in study.claims if claim.verdict == "not run"]
    without = f" It has no verdict on {', '.join(claims)}." if claims else ""
    return f"{study.name}: {run}.{without}"
