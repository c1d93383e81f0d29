"""Stage `original`: runs the protocol of November 2023 unchanged, on models of a family.

Its labels can be padding, its batches are tiny, and its sampler and its estimate have different
temperatures.
"""

from __future__ import annotations

import numpy as np

from replicate.data import traces, windows
from replicate.models.config import order
from replicate.pipeline.config import Config
from replicate.pipeline.work import plans, units


def run(config: Config, family: str, only: str | None = None) -> None:
    """Writes a trace for each model, with the number of padded labels in each minibatch."""
    given = config.families[family].original
    if given is None:
        config.paths.original(family).mkdir(parents=True, exist_ok=True)
        print(f"{family}: has no `original` in params.yaml, so nothing is run")
        return
    models = plans.only(given.models, only)
    chains = {name: plans.original(config, name) for name in models}
    padded_N = windows.load(config.paths.windows(family) / plans.PADDED).padded_N
    attributes = {"texts": len(padded_N), "padded_labels": float(padded_N.mean())}
    for name, trace in units.run_chains(config, family, "protocol of 2023,", chains):
        plan = chains[name][0].sampling
        shape = (plan.chains, plan.steps, plan.batch_size)
        orders = [order(config.seed, family, len(padded_N), i) for i in range(plan.shuffles)]
        met = [units.meets(plan, each, i) for each in orders for i in range(plan.chains)]
        padded = padded_N[np.reshape(met, (-1, *shape))].sum(axis=-1)
        trace["padded"] = (("shuffle", "chain", "draw"), padded)
        traces.save(trace.assign_attrs(attributes), config.paths.original(family) / name)
    print(f"{family}: {len(models)} models, {padded_N.mean():.1%} of {len(padded_N)} labels padded")
