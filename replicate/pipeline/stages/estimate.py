"""Stage `estimate`: runs the chains of a family's models with the sampler that `search` chose."""

from __future__ import annotations

from replicate.data import traces
from replicate.pipeline import health
from replicate.pipeline.config import Config
from replicate.pipeline.work import plans
from replicate.pipeline.work.units import run_chains


def run(config: Config, family: str, only: str | None = None) -> None:
    """Writes a trace for each model."""
    models = plans.only(config.families[family].models, only)
    chains = {name: plans.estimate(config, name) for name in models}
    for name, trace in run_chains(config, family, "estimate", chains):
        traces.save(trace, config.paths.traces(family) / name)
        health.show(config, name, trace)
