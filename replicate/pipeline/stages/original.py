"""Stage `original`: runs the protocol of November 2023 unchanged, on models of a family.

Its labels can be padding, its batches are tiny, and its sampler and its estimate have different
temperatures.
"""

from __future__ import annotations

import numpy as np

from replicate.data import traces, windows
from replicate.models.config import order
from replicate.pipeline.config import Config
from replicate.pipeline.parallel import run_units
from replicate.pipeline.work import plans, units


def run(config: Config, family: str, only: str | None = None) -> None:
    """Writes a trace for each model, with the number of padded labels in each minibatch.

    Args:
        config: all parameters.
        family: the name of the family.
        only: the name of the one model to compute; None for all.

    Raises:
        UserError: `only` is not among the models.
    """
    models = plans.only(config.families[family].original.models, only)
    chains = {name: plans.original(config, name) for name in models}
    every = [unit for mine in chains.values() for unit in mine]
    title, gpus = f"protocol of 2023, {family}", config.families[family].gpus_per_model
    run_units(every, config.machine, title, gpus)
    padded_N = windows.load(config.paths.windows(family) / plans.PADDED).padded_N
    for name, mine in chains.items():
        trace, plan = units.trace(mine), mine[0].sampling
        counts = [
            padded_N[units.meets(plan, order(config.seed, family, len(padded_N), shuffle), chain)]
            for shuffle in range(plan.shuffles)
            for chain in range(plan.chains)
        ]
        shape = (plan.shuffles, plan.chains, plan.steps, plan.batch_size)
        trace["padded"] = (
            ("shuffle", "chain", "draw"),
            np.stack(counts).reshape(shape).sum(axis=-1),
        )
        attributes = {"texts": len(padded_N), "padded_labels": float(padded_N.mean())}
        traces.save(trace.assign_attrs(attributes), config.paths.original(family) / name)
    print(f"{family}: {len(models)} models, {padded_N.mean():.1%} of {len(padded_N)} labels padded")
