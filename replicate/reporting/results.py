"""Reads what tables, figures and the report show: each study's plan and records, and the results
that belong to no study.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replicate.data.json_io import rounded
from replicate.errors import UserError
from replicate.study import published, records
from replicate.study.claims import CLAIMS
from replicate.study.plan import StudyPlan
from replicate.study.records.agreement import read_study

ESTIMATOR = "controlled"  # the estimator that claims are judged by
CALIBRATED = "control"  # the study that runs the whole calibration


@dataclass(frozen=True)
class Study:
    """A study's plan, and the records of what was run."""

    plan: StudyPlan
    claims: list[records.JudgedClaim]
    baselines: list[records.Baseline]
    curve: list[records.CurvePoint]
    estimates: list[records.Estimate]
    importances: list[records.Importance]
    original: list[records.OriginalProtocol]
    provenance: list[records.Provenance]
    quantisation: list[records.Quantised]
    refused: list[records.Refused]
    search: list[records.Trial]
    settings: list[records.Setting]
    traces: list[records.ThinnedTrace]
    training: list[records.Training]
    transfer: list[records.Transferred]
    windows: list[records.Extraction]

    @classmethod
    def read(cls, plan: StudyPlan, folder: Path) -> Study:
        """Reads results/<study>/*.json.

        Args:
            plan: the study's plan.
            folder: results/<study>.

        Raises:
            UserError: a file is missing or damaged, or contradicts the others or the plan; or a
                claim is missing.
        """
        found = read_study(plan, folder)
        return cls(plan=plan, claims=_claims(folder, f"read@{plan.name}"), **found)

    @property
    def name(self) -> str:
        """The study's name."""
        return self.plan.name

    @property
    def default(self) -> dict[str, records.Estimate]:
        """λ̂ of each model that was run, by the estimator that claims are judged by."""
        return {row.model: row for row in self.estimates if row.estimator == ESTIMATOR}

    @property
    def obtained(self) -> bool:
        """Whether there is anything to draw."""
        of_chains = self.estimates, self.settings, self.curve, self.transfer, self.original
        return any((*of_chains, self.search, self.quantisation))

    @property
    def worst_rhat(self) -> float:
        """The greatest R-hat of all models that were run."""
        return max((row.rhat or 0.0 for row in self.default.values()), default=0.0)

    @property
    def pictured(self) -> list[str]:
        """The models whose chains are drawn: of each size the first that was run, and of the
        checkpoints of one training the last.
        """
        first: dict[tuple[str, int], str] = {}
        earlier = {model for family in self.plan.families for model in family.earlier}
        for model, row in self.default.items():
            if model not in earlier:
                first.setdefault((row.family, row.parameters), model)
        return list(first.values())

    @property
    def missing(self) -> list[str]:
        """The planned models that have no λ̂."""
        known = {*self.default, *(row.model for row in self.settings)}
        return [model for model in self.plan.models if model not in known]

    @property
    def unfinished(self) -> list[str]:
        """The experiments of which not everything that is planned has run."""
        families = self.plan.families
        planned: dict[str, set[Any]] = {
            "neighbours": {m for f in families for m in f.neighbours if m in self.default},
            "curve": {
                (m, rounded(nbeta), rounded(gamma))
                for family in families
                for m, nbeta, gamma in family.curve
            },
            "transfer": {(m, rounded(x)) for family in families for m, x in family.transfer},
            "original": {model for family in families for model in family.original},
            "quantisation": {*self.plan.formats},
        }
        paired = {name for name, row in self.default.items() if row.dilation is not None}
        run: dict[str, set[Any]] = {
            "neighbours": paired,
            "curve": {(row.model, row.nbeta, row.localization) for row in self.curve},
            "transfer": {(row.model, row.factor) for row in self.transfer},
            "original": {row.model for row in self.original},
            "quantisation": {(row.model, row.moved, row.weights) for row in self.quantisation},
        }
        return [name for name, wanted in planned.items() if wanted - run[name]]


@dataclass(frozen=True)
class Reference:
    """The published figures with their verdicts, and the models whose λ is known."""

    figures: published.Figures
    claims: list[records.JudgedClaim]
    aggregates: list[records.Aggregate]
    anova: list[records.Analysis]
    calibration: list[records.Calibrated]
    controls: list[records.NegativeControl]
    coverage: list[records.Coverage]

    @classmethod
    def read(cls, figures: Path, results: Path) -> Reference:
        """Reads the published figures, results/published/ and the calibration of `CALIBRATED`.

        Args:
            figures: data/published.yaml.
            results: the folder results/.

        Raises:
            UserError: a file is missing or damaged.
        """
        return cls(
            figures=published.read(figures),
            claims=_claims(results / "published", "published"),
            **_read(results / "published", "aggregates", "anova"),
            **_read(results / CALIBRATED, "calibration", "controls", "coverage"),
        )


def _claims(folder: Path, stage: str) -> list[records.JudgedClaim]:
    """Reads the verdicts that a stage wrote, which must be on all claims."""
    file = folder / "claims.json"
    rows = records.read(file, records.JudgedClaim)
    if lacking := [claim.id for claim in CLAIMS if claim.id not in {row.id for row in rows}]:
        raise UserError(f"{file}: has no row of {', '.join(lacking)}; run `dvc repro {stage}`")
    return rows


def _read(folder: Path, *names: str) -> dict[str, Any]:
    return {name: records.read(folder / f"{name}.json", records.FILES[name]) for name in names}
