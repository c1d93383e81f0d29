"""Defines the records that are published in results/<study>/*.json, and their JSON Schemas."""

from __future__ import annotations

from typing import Any

from replicate.study.records.base import Record, parse, read, schema, write
from replicate.study.records.experiments import (
    Importance,
    OriginalProtocol,
    Quantised,
    Transferred,
    Trial,
)
from replicate.study.records.models import (
    Baseline,
    Estimate,
    Extraction,
    Metric,
    Provenance,
    Refused,
    ThinnedTrace,
    Training,
)
from replicate.study.records.verdicts import (
    Aggregate,
    Analysis,
    Calibrated,
    Coverage,
    JudgedClaim,
    NegativeControl,
    Part,
    Rung,
    Source,
    Verdict,
)

__all__ = [
    "COLLECTED",
    "FILES",
    "Aggregate",
    "Analysis",
    "Baseline",
    "Calibrated",
    "Coverage",
    "Estimate",
    "Extraction",
    "Importance",
    "JudgedClaim",
    "Metric",
    "NegativeControl",
    "OriginalProtocol",
    "Part",
    "Provenance",
    "Quantised",
    "Record",
    "Refused",
    "Rung",
    "Source",
    "ThinnedTrace",
    "Training",
    "Transferred",
    "Trial",
    "Verdict",
    "parse",
    "read",
    "schemas",
    "write",
]

COLLECTED: dict[str, type[Record]] = {  # written by `collect`, for one study
    "baselines": Baseline,
    "estimates": Estimate,
    "importances": Importance,
    "original": OriginalProtocol,
    "provenance": Provenance,
    "quantisation": Quantised,
    "refused": Refused,
    "search": Trial,
    "traces": ThinnedTrace,
    "training": Training,
    "transfer": Transferred,
    "windows": Extraction,
}
FILES: dict[str, type[Record]] = COLLECTED | {
    "aggregates": Aggregate,
    "anova": Analysis,
    "calibration": Calibrated,
    "claims": JudgedClaim,
    "controls": NegativeControl,
    "coverage": Coverage,
}


def schemas() -> dict[str, dict[str, Any]]:
    """Returns the JSON Schema of every file of results/, by its name; `metrics` is a mapping by
    model, all others are lists.
    """
    metrics = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": Metric.model_json_schema(),
    }
    return {name: schema(kind) for name, kind in FILES.items()} | {"metrics": metrics}
