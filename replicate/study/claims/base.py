"""Defines a claim of the write-up, and the finding that its test returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from replicate.estimation.statistics import Interval
from replicate.study.claims.evidence import Evidence, Rules
from replicate.study.records import JudgedClaim, Part, Source, Verdict


@dataclass(frozen=True)
class Finding:
    """The result of a claim's test.

    Attributes:
        why: a sentence on the verdict; if it is inconclusive, also on what would decide it.
        effect: the claim's `measure`.
        interval: the interval of the effect, of confidence 1 − `Rules.level`.
        p_value: p value of the one-sided test in the claim's direction.
        parts: the pieces of the evidence, judged or only reported.
    """

    verdict: Verdict
    why: str
    effect: float | None = None
    interval: Interval | None = None
    p_value: float | None = None
    parts: Sequence[Part] = ()

    @classmethod
    def on(cls, part: Part, why: str, parts: Sequence[Part] = ()) -> Finding:
        """Makes a finding with the verdict, effect, interval and p value of one judged part."""
        assert part.verdict is not None
        return cls(part.verdict, why, part.effect, part.interval, part.p_value, parts)


class Claim(ABC):
    """One claim of the write-up: what it says, how it is judged, and where its evidence is stored.

    Attributes:
        rule: says in words when the claim is supported and when it is not.
        measure: what the effect is, with its unit if it has one.
        needs: what a study must have obtained before the claim can be judged.
        sources: pairs of a file in results/<study> and the fields that are used; `{full}` and
            `{quantised}` are replaced by the names of the study's families.
        published_source: the key in data/published.yaml; empty if nothing was published.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    rule: ClassVar[str]
    measure: ClassVar[str]
    needs: ClassVar[str]
    sources: ClassVar[tuple[tuple[str, str], ...]]
    published_source: ClassVar[str] = ""

    @abstractmethod
    def judge(self, evidence: Evidence, rules: Rules) -> Finding | None:
        """Judges the claim; returns None if the evidence lacks what the claim needs."""

    def cite(self, evidence: Evidence) -> list[Source]:
        """Returns the files, and the keys in them, that hold the evidence for this claim."""
        place = evidence.place
        if place is None:
            return []
        if evidence.published is not None:
            return [Source(file=place.as_posix(), key=self.published_source)]
        return [
            Source(file=(place / f"{file}.json").as_posix(), key=key.format_map(evidence.names))
            for file, key in self.sources
        ]

    def record(self, evidence: Evidence, rules: Rules) -> JudgedClaim:
        """Judges the claim and returns the record that is published in claims.json."""
        found = self.judge(evidence, rules) or Finding("not run", f"It needs {self.needs}.")
        return JudgedClaim(
            id=self.id,
            claim=self.title,
            verdict=found.verdict,
            measure=self.measure,
            effect=found.effect,
            interval=found.interval,
            p_value=found.p_value,
            why=found.why,
            parts=list(found.parts),
            evidence=[] if found.verdict == "not run" else self.cite(evidence),
        )
