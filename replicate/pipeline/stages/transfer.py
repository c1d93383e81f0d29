"""Stage `transfer`: runs chains of a family's models at the chosen step size times each factor.

All factors have the same batches and noise.
"""

from __future__ import annotations

from itertools import product

from replicate.data import traces
from replicate.pipeline.config import Config
from replicate.pipeline.work import plans
from replicate.pipeline.work.units import run_chains


def run(config: Config, family: str, only: str | None = None) -> None:
    """Writes a trace for each model and factor."""
    given = config.families[family].transfer
    models = plans.only(given.models, only)
    chains = {kind: plans.transfer(config, *kind) for kind in product(models, given.factors)}
    for (name, factor), trace in run_chains(config, family, "transfer", chains):
        traces.save(trace, config.paths.transfer(family) / name / f"{factor:g}")
    print(f"{family}: {len(models)} models at {len(given.factors)} step sizes")
