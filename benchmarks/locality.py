"""`python -m benchmarks.locality`: how far the control models' chains rise above w*, by γ.

A chain of each model at each γ, at nβ and batch size of params.yaml, ε = 0.5/γ at most 10⁻³, after
`make demo`: nats above w*, λ̂, and the share of the way to guessing
(replicate/estimation/diagnostics.py).
"""

from __future__ import annotations

from math import log
from pathlib import Path

import torch

from replicate.data.windows import read_tokenizer
from replicate.estimation import diagnostics
from replicate.models import loading as models
from replicate.models import task as subjects
from replicate.pipeline.config import load
from replicate.sampling import Plan, Setting, sample

FAMILY, LOCALIZATIONS, BURN_IN, DRAWS = Path("data/mini"), (100.0, 300.0, 500.0, 1000.0), 80, 60


def main() -> None:
    """Prints a line a model and γ."""
    torch.set_num_threads(1)
    params = load()
    sampling = params.families[FAMILY.name].sampling
    guess = log(read_tokenizer(FAMILY / "windows").get_vocab_size())
    for name in params.models_of(FAMILY.name):
        models.device("any", name)
        subject = subjects.load(params, name, FAMILY / "windows", FAMILY / "models" / name)
        losses_N = subjects.baseline_losses(FAMILY / "baselines" / name)
        for localization in LOCALIZATIONS:
            trace = sample(
                subject.space,
                subject,
                losses_N,
                Setting("sgld", min(1e-3, 0.5 / localization), localization=localization),
                Plan(
                    sampling.nbeta,
                    batch_size=sampling.batch_size,
                    groups=1,
                    chains=1,
                    burn_in=BURN_IN,
                    draws=DRAWS,
                ),
                order=subject.order,
                noise=lambda group, chain: params.seed,
                advance=lambda steps=1, note="": None,
            )
            rise = float((trace.loss - trace.init_loss).sel(draw=slice(0, None)).mean())
            share = diagnostics.escape(trace.loss.values[0], BURN_IN, float(losses_N.mean()), guess)
            print(
                f"{name:<12} γ {localization:6.0f}: {rise:5.2f} nats above w*, λ̂ {sampling.nbeta * rise:6.1f}, {share:4.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
