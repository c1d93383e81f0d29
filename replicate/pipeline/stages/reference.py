"""Calibration, published figures and measured costs → figure, LaTeX tables and values that belong
to no study. No torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from replicate.errors import UserError
from replicate.pipeline.config import Params
from replicate.reporting import tables, values
from replicate.reporting.figures.calibration import calibration
from replicate.reporting.figures.save import save
from replicate.study import published
from replicate.study.records import Aggregate, Analysis, Calibrated, Claim, Control, Coverage, read


def run(params: Params, results: Path, published_in: Path, benchmarks: Path, out: Path) -> None:
    calibrated, controls = (
        read(results / "calibration.json", Calibrated),
        read(results / "controls.json", Control),
    )
    coverage = read(results / "coverage.json", Coverage)
    claims = read(results / "published" / "claims.json", Claim)
    aggregates, analyses = (
        read(results / "published" / "aggregates.json", Aggregate),
        read(results / "published" / "anova.json", Analysis),
    )
    save(calibration(calibrated, controls), out / "figures" / "calibration")
    named = {
        "published": values.verdicts(claims)
        | values.published(analyses, aggregates, published.read(published_in)),
        "calibration": values.calibration(coverage, calibrated, controls),
        "cost": values.costs(measured(benchmarks / "results.json")),
    }
    fragments = {
        "aggregates": tables.aggregates(aggregates),
        "anova": tables.anova(analyses),
        "calibration": tables.calibration(calibrated),
        "controls": tables.controls(controls),
        "judged": tables.judged(claims),
        "undecided": tables.undecided(claims),
        "values": "".join(values.lines(prefix, each) for prefix, each in named.items()),
    }
    tables.write(fragments, out / "tables")


def measured(file: Path) -> dict[str, Any]:
    """Raises:
    UserError: it is missing, or not what `python -m benchmarks` writes.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        values.costs(found)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration) as error:
        cause = f"{type(error).__name__}: {error}"
        raise UserError(
            f"{file}: not what `python -m benchmarks` writes ({cause}); take it from git again"
        ) from None
    return found
