"""Every claim with its verdicts, and what each rests on."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from replicate.reporting.formatting import effect, effects, probability
from replicate.reporting.report.evidence import Reference, Study
from replicate.reporting.report.table import Table, row
from replicate.study.claims import CLAIMS
from replicate.study.records import Claim, Evidence

PUBLISHED = "published"
FIGURES = {  # claim → figure of each study; `{full}`: its full-precision family
    "C1": "llc",
    "C2": "llc",
    "C3": "search-{full}",
    "C4": "search-{full}",
    "C5": "search-{full}",
    "C7": "original",
    "C8": "transfer",
    "C9": "llc",
    "C10": "quantisation",
    "C11": "llc",
}
KINDS = {
    "supported": "supported",
    "not supported": "against",
    "inconclusive": "open",
    "not run": "unrun",
}  # verdict → style


@dataclass(frozen=True)
class Finding:
    """What one body of evidence says on a claim. `cited`: it rests on what others wrote, and was
    not tested.
    """

    study: str
    verdict: str
    kind: str
    why: str
    cited: bool
    effect: str
    interval: str
    p: str
    parts: Table | None
    sources: Sequence[Evidence]
    figure: str


@dataclass(frozen=True)
class Judged:
    id: str
    claim: str
    measure: str
    rule: str
    findings: Sequence[Finding]


def verdicts(studies: Sequence[Study], reference: Reference) -> list[Judged]:
    """In the order of the claims; of each the published figures first.

    Raises:
        LookupError: a study lacks a claim.
    """
    sides: dict[str, Mapping[str, Claim]] = {
        PUBLISHED: {claim.id: claim for claim in reference.claims}
    }
    sides |= {study.name: {claim.id: claim for claim in study.claims} for study in studies}
    drawn = {study.name: (study.families[0], study.figures) for study in studies}
    judged = []
    for claim in reference.claims:
        findings = []
        for name, claims in sides.items():
            full, figures = drawn.get(name, ("", {}))
            figure = FIGURES.get(claim.id, "").format(full=full)
            findings.append(finding(name, claims[claim.id], figure if figure in figures else ""))
        judged.append(Judged(claim.id, claim.claim, claim.measure, rule(claim.id), findings))
    return judged


def finding(study: str, claim: Claim, figure: str) -> Finding:
    tested = claim.verdict != "not run"
    return Finding(
        study=study,
        verdict=claim.verdict,
        kind=KINDS[claim.verdict],
        why=claim.why,
        cited=cited(claim),
        effect="" if claim.effect is None else effect(claim.effect),
        interval="" if claim.interval is None else effects(claim.interval),
        p="" if claim.p_value is None else probability(claim.p_value),
        parts=parts(study, claim),
        sources=claim.evidence,
        figure=figure if tested else "",
    )


def parts(study: str, claim: Claim) -> Table | None:
    if not claim.parts:
        return None
    return Table(
        f"Parts of {claim.id}, {study}",
        ("part", "verdict", "effect", "95 % interval", "p"),
        [
            row(
                p.name,
                p.verdict or "not judged",
                effect(p.effect),
                effects(p.interval),
                probability(p.p_value),
            )
            for p in claim.parts
        ],
        words=2,
    )


def rule(claim: str) -> str:
    """The test of a claim in words, as the function that does it states it."""
    if claim not in CLAIMS:
        return ""
    return " ".join((inspect.getdoc(CLAIMS[claim][0]) or "").split()).removeprefix(f"{claim}. ")


def cited(claim: Claim) -> bool:
    return bool(claim.evidence) and all(source.file.endswith(".bib") for source in claim.evidence)
