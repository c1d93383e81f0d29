"""The samplers of this project: `replicate.sampling.sample`."""

from __future__ import annotations

from functools import cache

import numpy as np
from transformers import PreTrainedModel

from benchmarks.work import LOCALIZATION, LR, NBETA, Work, tokens
from replicate import label, models
from replicate.sampling import Plan, Setting, sample


@cache
def model(work: Work) -> PreTrainedModel:
    """The saved model as the stages load it."""
    assert work.folder is not None
    network = models.load(work.folder, work.dtype, models.device("any", work.name))
    label.focus(network)
    return network


def run(work: Work, steps: int) -> np.ndarray:
    network, tokens_NxL = model(work), tokens(work)
    trace = sample(
        list(models.sampled(network).values()),
        lambda index_B: label.losses(network, tokens_NxL[index_B]),
        np.zeros(len(tokens_NxL), np.float32),
        Setting("sgld", LR, localization=LOCALIZATION),
        Plan(nbeta=NBETA, batch_size=work.batch, groups=1, chains=work.chains, burn_in=0, draws=steps),
        order=lambda group: np.random.default_rng(group).permutation(len(tokens_NxL)),
        noise=lambda group, chain: chain,
        advance=lambda steps=1, note="": None,
    )
    return trace.loss.sel(group=0).to_numpy()
