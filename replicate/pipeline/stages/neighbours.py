"""Stage `neighbours`: runs the chains of `estimate` again at 1.25·γ, with the same noise.

How λ̂ differs tells its elasticity in γ far more precisely than chains at one γ do.
"""

from __future__ import annotations

from dataclasses import replace

from replicate.data import traces
from replicate.errors import UserError
from replicate.pipeline.config import Config
from replicate.pipeline.work import plans
from replicate.pipeline.work.units import ChainUnit, run_chains

FACTOR = 1.25  # of γ


def plan(config: Config, model: str) -> list[ChainUnit]:
    """Returns the chains of `estimate` with the same minibatches and noise, at `FACTOR` times γ.

    Raises:
        UserError: the chosen sampler has no localisation.
    """
    units = plans.estimate(config, model)
    gamma = units[0].sampler.localization
    if not gamma:
        key = f"families.{config.family_of(model)}.sampling.localization"
        raise UserError(f"{key}: 0, which has no neighbour, was chosen; write a positive one")
    moved = replace(units[0].sampler, localization=FACTOR * gamma)
    return [replace(unit, stage="neighbours", sampler=moved) for unit in units]


def run(config: Config, family: str, only: str | None = None) -> None:
    """Writes a trace for each model."""
    models = plans.only(config.families[family].models, only)
    if not plans.chosen(config, family).localization:
        config.paths.neighbours(family).mkdir(parents=True, exist_ok=True)
        print(f"{family}: the chosen sampler has no localisation, so nothing is run")
        return
    chains = {name: plan(config, name) for name in models}
    for name, trace in run_chains(config, family, "neighbours", chains):
        traces.save(trace, config.paths.neighbours(family) / name)
    print(f"{family}: {len(models)} models at {FACTOR:g}·γ")
