"""data/published.yaml → its averages and its variance, recomputed, and its verdicts. No torch."""

from __future__ import annotations

from pathlib import Path

from replicate.pipeline.config import Params
from replicate.pipeline.stages import claims
from replicate.study import published
from replicate.study.records import write


def run(params: Params, published_in: Path, out: Path) -> None:
    figures = published.read(published_in)
    rows = [
        published.analysis(name, list(family.models), family.llc_GxM)
        for name, family in figures.families.items()
    ]
    write(out / "aggregates.json", published.aggregates(figures))
    write(out / "anova.json", rows)
    claims.run(params, "published", out, published_in, out)
