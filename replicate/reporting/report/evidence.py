"""What the report is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from replicate.study.published import Figures
from replicate.study.records import (
    Aggregate,
    Analysis,
    Baseline,
    Calibrated,
    Claim,
    Control,
    Coverage,
    Estimate,
    Extraction,
    Importance,
    Provenance,
    Quantised,
    Reexamined,
    Trace,
    Training,
    Transferred,
    Trial,
)


@dataclass(frozen=True)
class Sampled:
    """What a part of a study took in chains, and in gradients of a minibatch; none where it was not
    run.
    """

    part: str
    family: str
    chains: int
    gradients: int


@dataclass(frozen=True)
class Study:
    """One study's results. `families`: those it has, the full-precision one first; `models`: model
    → family, all that it asks for; `figures`: name → SVG, `cost`: what was sampled.
    """

    name: str
    families: tuple[str, ...]
    models: Mapping[str, str]
    claims: Sequence[Claim]
    baselines: Sequence[Baseline]
    estimates: Sequence[Estimate]
    importances: Sequence[Importance]
    original: Sequence[Reexamined]
    provenance: Sequence[Provenance]
    quantisation: Sequence[Quantised]
    search: Sequence[Trial]
    traces: Sequence[Trace]
    training: Sequence[Training]
    transfer: Sequence[Transferred]
    windows: Sequence[Extraction]
    cost: Sequence[Sampled]
    figures: Mapping[str, str]

    @property
    def default(self) -> list[Estimate]:
        """λ̂ by the estimator that claims are judged by."""
        return [row for row in self.estimates if row.estimator == "controlled"]

    @property
    def run(self) -> list[Estimate]:
        return [row for row in self.default if row.status == "run"]


@dataclass(frozen=True)
class Reference:
    """What belongs to no study: the published figures and their verdicts, and models whose λ is
    known.
    """

    figures: Figures
    claims: Sequence[Claim]
    aggregates: Sequence[Aggregate]
    anova: Sequence[Analysis]
    calibration: Sequence[Calibrated]
    controls: Sequence[Control]
    coverage: Sequence[Coverage]
    drawn: str
