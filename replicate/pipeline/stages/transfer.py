"""Stage `transfer`: the chosen step size times each factor, on models of a family, with the same
batches and noise.
"""

from __future__ import annotations

from replicate.data import traces
from replicate.pipeline.config import Config
from replicate.pipeline.parallel import run_units
from replicate.pipeline.work import plans, units


def run(config: Config, family: str, only: str | None = None) -> None:
    """Leaves a trace for each model and factor."""
    given = config.families[family].transfer
    models = plans.only(given.models, only)
    chains = {
        (name, factor): plans.transfer(config, name, factor)
        for name in models
        for factor in given.factors
    }
    every = [unit for mine in chains.values() for unit in mine]
    run_units(every, config.machine, f"transfer {family}", config.families[family].gpus_per_model)
    for (name, factor), mine in chains.items():
        trace = units.trace(mine, plans.baseline_loss(config, name))
        traces.save(trace, config.paths.transfer(family) / name / f"{factor:g}")
    print(f"{family}: {len(models)} models at {len(given.factors)} step sizes")
