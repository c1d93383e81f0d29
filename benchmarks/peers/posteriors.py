"""posteriors: functional SGLD, one chain after another, each step a new state."""

from __future__ import annotations

from itertools import cycle, islice

import posteriors  # pyright: ignore[reportMissingImports]
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from benchmarks.work import LOCALIZATION, LR, NBETA, Work, autocast, model, tokens


def run(work: Work, steps: int) -> Tensor:
    network, tokens_NxL = model(work), tokens(work)
    anchor = {name: parameter.detach() for name, parameter in network.named_parameters()}
    options = {"use_cache": False, "logits_to_keep": 0 if work.logits == "all" else 1}

    def log_posterior(parameters: dict[str, Tensor], tokens_BxL: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(work):
            logits_BxV = functional_call(
                network, parameters, (tokens_BxL[:, :-1],), options
            ).logits[:, -1]
        loss = cross_entropy(logits_BxV.float(), tokens_BxL[:, -1])
        distance = torch.stack(
            [(parameters[name] - origin).square().sum() for name, origin in anchor.items()]
        ).sum()
        return -NBETA * loss - LOCALIZATION / 2 * distance, loss

    # θ ← θ + lr·∇ log p + √(2·lr)·N(0, I)
    build = posteriors.sgmcmc.sgld.build  # pyright: ignore[reportAttributeAccessIssue]
    sgld = build(log_posterior, lr=LR / 2)
    losses = torch.empty(work.chains, steps)
    for chain in range(work.chains):
        torch.manual_seed(chain)
        loader = DataLoader(tokens_NxL, work.batch, shuffle=True, drop_last=True)  # pyright: ignore[reportArgumentType]
        state = sgld.init({name: origin.clone() for name, origin in anchor.items()})
        for step, tokens_BxL in enumerate(islice(cycle(loader), steps)):
            state, losses[chain, step] = sgld.update(state, tokens_BxL)
    return losses
