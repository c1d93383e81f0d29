"""Defines a claim of the write-up, and the finding that its test returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from replicate.estimation.statistics import Interval
from replicate.study.claims.evidence import Evidence
from replicate.study.records import JudgedClaim
from replicate.study.records.verdicts import Part, Source, Verdict
from replicate.study.rules import Rules


def part(
    name: str,
    verdict: Verdict | None = None,
    effect: float | None = None,
    interval: Interval | None = None,
    p: float | None = None,
) -> Part:
    """Returns a piece of evidence; a verdict of None reports it without judging it.

    An effect that is NaN becomes None, and so does an interval with an end that is not finite.
    """
    if effect is not None and np.isnan(effect):
        effect = None
    if interval is not None and not np.isfinite(interval).all():
        interval = None
    return Part(name=name, verdict=verdict, effect=effect, interval=interval, p_value=p)


@dataclass(frozen=True)
class Finding:
    """The result of a claim's test.

    Attributes:
        chief: the verdict, and the effect, interval and p value that it is based on.
        why: a sentence on the verdict; if it is inconclusive, also on what would decide it.
        parts: the pieces of the evidence, judged or only reported.
        measure: what the effect is, if it is not what the claim says.
        sources: where the evidence is stored, if it is not where the claim says.
    """

    chief: Part
    why: str
    parts: Sequence[Part] = ()
    measure: str = ""
    sources: Sequence[tuple[str, str]] = ()


def inconclusive(why: str, parts: Sequence[Part] = ()) -> Finding:
    """Returns a finding without an effect."""
    return Finding(part("", "inconclusive"), why, parts)


def not_decided(why: str) -> Finding:
    """Returns the finding that evidence of this kind cannot decide a claim."""
    return Finding(part("", "not decided here"), why)


class Claim(ABC):
    """One claim of the write-up: what it says, how it is judged, and where its evidence is stored.

    The docstring of each claim is its rule, which the report prints.

    Attributes:
        measure: what the effect is, with its unit if it has one.
        needs: what a study must have obtained before the claim can be judged.
        sources: pairs of a file in results/<study> and the fields that are used; `{full}` and
            `{quantised}` are replaced by the names of the study's families.
        published_source: the key in data/published.yaml; empty if nothing was published.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    measure: ClassVar[str]
    needs: ClassVar[str]
    sources: ClassVar[tuple[tuple[str, str], ...]]
    published_source: ClassVar[str] = ""

    @property
    def rule(self) -> str:
        """Says in words when the claim is supported and when it is not."""
        return " ".join((self.__doc__ or "").split())

    @abstractmethod
    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        """Judges the claim; returns None if the evidence lacks what the claim needs."""

    def cite(self, evidence: Evidence, found: Finding) -> list[Source]:
        """Returns the files, and the keys in them, that hold the evidence for a finding."""
        place = evidence.place
        if evidence.published is not None:
            return [Source(file=place.as_posix(), key=self.published_source)]
        names = {"full": evidence.full_name, "quantised": evidence.quantised_name}
        return [
            Source(file=(place / f"{file}.json").as_posix(), key=key.format_map(names))
            for file, key in found.sources or self.sources
        ]

    def record(self, evidence: Evidence, rules: Rules) -> JudgedClaim:
        """Judges the claim and returns the record that is published in claims.json."""
        found = self.judge(evidence, rules)
        if found is None:
            found = Finding(part("", "not run"), f"It needs {self.needs}.")
        return JudgedClaim(
            id=self.id,
            claim=self.title,
            measure=found.measure or self.measure,
            why=found.why,
            parts=list(found.parts),
            evidence=[] if found.chief.verdict == "not run" else self.cite(evidence, found),
            **found.chief.model_dump(exclude={"name"}),
        )
