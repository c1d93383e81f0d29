"""Stage `published`: recomputes averages and analyses of variance of the published figures, and
judges the claims on them.
"""

from __future__ import annotations

from replicate.pipeline.config import Config
from replicate.study import evidence, published
from replicate.study.claims import judge
from replicate.study.records import write


def run(config: Config) -> None:
    """Writes aggregates.json, anova.json and claims.json to results/published."""
    file, out = config.paths.published, config.paths.study("published")
    figures = published.read(file)
    rules = config.rules
    write(out / "aggregates.json", published.aggregates(figures))
    write(out / "anova.json", published.analyses(figures))
    write(out / "claims.json", judge(evidence.of_figures(figures, file), rules))
