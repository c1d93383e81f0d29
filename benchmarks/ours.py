"""This project's samplers, as its stages run them: several chains on a process a core, one alone on
all cores.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import cache

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.work import LOCALIZATION, LR, NBETA, Work, autocast, tokens
from replicate.models import last_token as label
from replicate.models import loading as models
from replicate.pipeline import parallel as processes
from replicate.sampling import Chain, Plan, Setting, Space, walk


@cache
def model(work: Work) -> PreTrainedModel:
    """The saved model as the stages load it."""
    assert work.folder is not None
    network = models.load(work.folder, "float32", models.device("any", work.name))
    label.focus(network)
    return network


def run(work: Work, steps: int) -> np.ndarray:
    chains = list(range(work.chains))
    count = min(processes.count("auto"), work.chains)
    if count == 1:
        losses = losses_of(work, steps, chains)
    else:
        shares = [chains[rank::count] for rank in range(count)]
        parts = [pool(count).submit(losses_of, work, steps, share) for share in shares]
        losses = {chain: loss for part in parts for chain, loss in part.result().items()}
    return np.stack([losses[chain] for chain in chains])


@cache
def pool(count: int) -> ProcessPoolExecutor:
    return processes.pool(count)


def losses_of(work: Work, steps: int, chains: list[int]) -> dict[int, np.ndarray]:
    """The minibatch losses (steps,) of some of the work's chains."""
    network, tokens_NxL = model(work), tokens(work)
    done: dict[tuple[int, int], Chain] = {}

    def loss(index_B: Tensor) -> Tensor:
        with autocast(work):
            return label.losses(network, tokens_NxL[index_B])

    walk(
        Space(list(models.sampled(network).values())),
        loss,
        np.zeros(len(tokens_NxL), np.float32),
        Setting("sgld", LR, localization=LOCALIZATION),
        Plan(
            nbeta=NBETA, batch_size=work.batch, groups=1, chains=work.chains, burn_in=0, draws=steps
        ),
        [[(0, chain)] for chain in chains],
        order=lambda group: np.random.default_rng(group).permutation(len(tokens_NxL)),
        noise=lambda group, chain: chain,
        advance=lambda steps=1, note="": None,
        done=done,
    )
    return {chain: done[0, chain].loss for chain in chains}
