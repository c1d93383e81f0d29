"""Stage `estimate`: runs the chains of a family's models with the sampler that `search` chose."""

from __future__ import annotations

from replicate.data import traces
from replicate.pipeline.config import Config
from replicate.pipeline.parallel import run_units
from replicate.pipeline.work import plans, units


def run(config: Config, family: str, only: str | None = None) -> None:
    """Writes a trace for each model.

    Args:
        config: all parameters.
        family: the name of the family.
        only: the name of the one model to compute; None for all.

    Raises:
        UserError: `only` is not among the models.
    """
    models = plans.only(config.families[family].models, only)
    chains = {name: plans.estimate(config, name) for name in models}
    every = [unit for mine in chains.values() for unit in mine]
    run_units(every, config.machine, f"estimate {family}", config.families[family].gpus_per_model)
    for name, mine in chains.items():
        trace = units.trace(mine, plans.baseline_loss(config, name))
        traces.save(trace, config.paths.traces(family) / name)
        whole = int((~trace.diverged).sum())
        print(f"{name}: {whole} of {trace.diverged.size} chains did not diverge")
