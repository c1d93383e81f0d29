"""Reads what tables, figures and the report show: each study's plan and records, and the results
that belong to no study.
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

ESTIMATOR = "controlled"  # the estimator that claims are judged by
CALIBRATED = "control"  # the study that runs the whole calibration


@dataclass(frozen=True)
class Study:
    """A study's plan, and the records of what was run."""

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
        """Reads results/<study>/*.json.

        Args:
            plan: the study's plan.
            folder: results/<study>.

        Raises:
            UserError: a file is missing or damaged.
        """
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
        """λ̂ of each model that was run, by the estimator that claims are judged by."""
        return {row.model: row for row in self.estimates if row.estimator == ESTIMATOR}

    @property
    def missing(self) -> list[str]:
        """The planned models that have no λ̂."""
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
        """Reads the published figures, results/published/ and the calibration of `CALIBRATED`.

        Args:
            figures: data/published.yaml.
            results: the folder results/.

        Raises:
            UserError: a file is missing or damaged.
        """
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
