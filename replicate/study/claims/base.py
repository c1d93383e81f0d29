"""What a claim is, and what its test returns."""

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
    """What a claim's test found.

    Attributes:
        why: the verdict in a sentence; where it is open, what would decide it.
        p_value: of the one-sided test in the claim's direction.
        parts: the pieces of the evidence, those that the verdict rests on first.
    """

    verdict: Verdict
    why: str
    effect: float | None = None
    interval: Interval | None = None
    p_value: float | None = None
    parts: Sequence[Part] = ()

    @classmethod
    def on(cls, part: Part, why: str, parts: Sequence[Part] = ()) -> Finding:
        """Returns the finding that has the verdict and the numbers of one judged part."""
        assert part.verdict is not None
        return cls(part.verdict, why, part.effect, part.interval, part.p_value, parts)


class Claim(ABC):
    """One claim of the write-up: what it says, how it is judged, and where its evidence stands.

    Attributes:
        rule: when the claim is supported and when it is not, in words.
        measure: what the effect is.
        needs: what a study must have obtained before the claim can be judged.
        sources: file of results/<study> and what of it is used; `{full}` and `{quantised}` stand
            for the names of the study's families.
        published_source: the key of data/published.yaml; empty where nothing was published.
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
        """Judges the claim; returns None where the evidence does not hold what it needs."""

    def cite(self, evidence: Evidence) -> list[Source]:
        """Returns where the evidence for this claim stands."""
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
        """Judges the claim and returns the record that is published."""
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
