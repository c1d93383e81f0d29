"""`python -m benchmarks.locality`: how far the chains of the control models rise above w*, by γ.

Runs a chain of each model at each γ, with nβ and batch size of params.yaml and ε = 0.5/γ, at most
10⁻³. It needs what `dvc repro read@control` leaves, and prints the rise of the loss above w*
(nats), λ̂, and the rise as a share of the rise to guessing
(`replicate.estimation.diagnostics.escape`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import log

import torch

from replicate.data.windows import read_tokenizer
from replicate.estimation import diagnostics
from replicate.models import task as tasks
from replicate.models.config import order
from replicate.pipeline import config as parameters
from replicate.pipeline.work import plans, units
from replicate.progress import silent
from replicate.sampling import SamplerConfig, sample

FAMILY, LOCALIZATIONS, BURN_IN, DRAWS = "sizes", (100.0, 300.0, 500.0, 1000.0), 80, 60


def main() -> None:
    """Prints a line for each model and γ."""
    torch.set_num_threads(1)
    config = parameters.load()
    asked = plans.sampling(config, FAMILY, config.families[FAMILY].sampling)
    sampling = replace(asked, shuffles=1, chains=1, burn_in=BURN_IN, draws=DRAWS)
    guess = log(read_tokenizer(config.paths.windows(FAMILY)).get_vocab_size())
    for name in config.families[FAMILY].models:
        task = tasks.load(plans.task_config(config, name))
        losses_N = units.read_losses(plans.baseline_file(config, task.config), task.examples)
        for localization in LOCALIZATIONS:
            lr = min(1e-3, 0.5 / localization)
            trace = sample(
                task,
                SamplerConfig("sgld", lr, localization=localization),
                sampling,
                losses_N,
                order=partial(order, config.seed, FAMILY, task.examples),
                noise=lambda shuffle, chain: config.seed,
                advance=silent,
            )
            rise = float((trace.loss - trace.init_loss).sel(draw=slice(0, None)).mean())
            share = diagnostics.escape(trace.loss.values[0], BURN_IN, float(losses_N.mean()), guess)
            llc = sampling.nbeta * rise
            line = f"{rise:5.2f} nats above w*, λ̂ {llc:6.1f}, {share:4.0%}"
            print(f"{name:<12} γ {localization:6.0f}: {line}", flush=True)


if __name__ == "__main__":
    main()
