"""What tables, figures and the report are made from: a study's records with its plan, and what
belongs to no study.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replicate.study import published
from replicate.study.plan import StudyPlan
from replicate.study.records import (
    COLLECTED,
    Aggregate,
    Analysis,
    Baseline,
    Calibrated,
    Coverage,
    Estimate,
    Extraction,
    Importance,
    JudgedClaim,
    NegativeControl,
    OriginalProtocol,
    Provenance,
    Quantised,
    Refused,
    ThinnedTrace,
    Training,
    Transferred,
    Trial,
    read,
)

ESTIMATOR = "controlled"  # by which claims are judged
CALIBRATED = "control"  # the study with the whole calibration


@dataclass(frozen=True)
class Study:
    """What a study asks for, and what of it was run."""

    plan: StudyPlan
    claims: list[JudgedClaim]
    baselines: list[Baseline]
    estimates: list[Estimate]
    importances: list[Importance]
    original: list[OriginalProtocol]
    provenance: list[Provenance]
    quantisation: list[Quantised]
    refused: list[Refused]
    search: list[Trial]
    traces: list[ThinnedTrace]
    training: list[Training]
    transfer: list[Transferred]
    windows: list[Extraction]

    @classmethod
    def read(cls, plan: StudyPlan, folder: Path) -> Study:
        """Reads results/<study>/*.json."""
        found: dict[str, Any] = {
            name: read(folder / f"{name}.json", kind) for name, kind in COLLECTED.items()
        }
        return cls(plan=plan, claims=read(folder / "claims.json", JudgedClaim), **found)

    @property
    def name(self) -> str:
        """The study's name."""
        return self.plan.name

    @property
    def default(self) -> dict[str, Estimate]:
        """λ̂ by the estimator that claims are judged by, of each model that was run."""
        return {row.model: row for row in self.estimates if row.estimator == ESTIMATOR}

    @property
    def missing(self) -> list[str]:
        """The models that the study asks for and has no λ̂ of."""
        return [model for model in self.plan.models if model not in self.default]


@dataclass(frozen=True)
class Reference:
    """The published figures with their verdicts, and the models whose λ is known."""

    figures: published.Figures
    claims: list[JudgedClaim]
    aggregates: list[Aggregate]
    anova: list[Analysis]
    calibration: list[Calibrated]
    controls: list[NegativeControl]
    coverage: list[Coverage]

    @classmethod
    def read(cls, figures: Path, results: Path) -> Reference:
        """Reads data/published.yaml, results/published/ and the calibration of `CALIBRATED`."""
        known = results / CALIBRATED
        return cls(
            figures=published.read(figures),
            claims=read(results / "published" / "claims.json", JudgedClaim),
            aggregates=read(results / "published" / "aggregates.json", Aggregate),
            anova=read(results / "published" / "anova.json", Analysis),
            calibration=read(known / "calibration.json", Calibrated),
            controls=read(known / "controls.json", NegativeControl),
            coverage=read(known / "coverage.json", Coverage),
        )
