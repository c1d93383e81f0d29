"""results/calibration.json and results/published → figure and LaTeX tables that belong to no study. No torch."""

from __future__ import annotations

from pathlib import Path

from replicate import tables
from replicate.figures.calibration import calibration
from replicate.figures.save import save
from replicate.params import Params
from replicate.results import Aggregate, Analysis, Calibrated, Claim, Control, Coverage, read


def run(params: Params, results: Path, out: Path) -> None:
    calibrated, controls = read(results / "calibration.json", Calibrated), read(results / "controls.json", Control)
    coverage = read(results / "coverage.json", Coverage)
    claims = read(results / "published" / "claims.json", Claim)
    aggregates, analyses = read(results / "published" / "aggregates.json", Aggregate), read(results / "published" / "anova.json", Analysis)
    save(calibration(calibrated, controls), out / "figures" / "calibration")
    fragments = {
        "aggregates": tables.aggregates(aggregates),
        "anova": tables.anova(analyses),
        "calibration": tables.calibration(calibrated),
        "controls": tables.controls(controls),
        "values": tables.verdicts("published", claims) + tables.shares(analyses) + tables.coverage(coverage, calibrated),
    }
    tables.write(fragments, out / "tables")
