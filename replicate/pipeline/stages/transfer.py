"""Stage `transfer`: runs chains of a family's models at the chosen step size times each factor.

All factors have the same batches and noise.
"""

from __future__ import annotations

from replicate.data import traces
from replicate.pipeline.config import Config
from replicate.pipeline.parallel import run_units
from replicate.pipeline.work import plans, units


def run(config: Config, family: str, only: str | None = None) -> None:
    """Writes a trace for each model and factor.

    Args:
        config: all parameters.
        family: the name of the family.
        only: the name of the one model to compute; None for all.

    Raises:
        UserError: `only` is not among the models.
    """
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
