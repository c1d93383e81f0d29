"""Holds the weights of several chains side by side: each tensor has an axis of chains, (C, …).

Small models are slow because they consist of many small operations. Computing the loss of all
chains at once takes fewer and larger operations. Each chain has its own sampler, which moves its
part of the weights as if the chain were alone, with its own noise, preconditioner and friction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from replicate.sampling.samplers.base import Sampler
from replicate.sampling.storage import Anchor, dense


class Stack:
    """Holds the weights of C chains, which all start at the anchor.

    Attributes:
        weights: a tensor (C, …) for each parameter.
        shares: for each chain, its parameters, which are views of `weights`.

    Args:
        anchor: w*, for each parameter.
        chains: C, the number of chains.
    """

    def __init__(self, anchor: Sequence[Anchor], chains: int) -> None:
        start = [dense(each) for each in anchor]
        self.start = start
        self.weights = [w.expand(chains, *w.shape).clone().requires_grad_() for w in start]
        self.shares = [[nn.Parameter(w.data[c]) for w in self.weights] for c in range(chains)]

    def slopes(self) -> Tensor:
        """Returns Δ·∇ of each chain, (C,) float64, for the gradients that the weights have now."""
        pairs = [(w, w.grad, at) for w, at in zip(self.weights, self.start, strict=True)]
        found = [
            ((w.detach() - at) * grad).flatten(1).sum(dim=1, dtype=torch.float64)
            for w, grad, at in pairs
            if grad is not None
        ]
        return torch.stack(found).sum(dim=0)

    @contextmanager
    def attached(self, samplers: Sequence[Sampler]) -> Iterator[None]:
        """Makes each sampler move its chain's weights during backward passes in this context."""
        hooks = [
            w.register_post_accumulate_grad_hook(partial(self._on_gradient, samplers, index))
            for index, w in enumerate(self.weights)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _on_gradient(self, samplers: Sequence[Sampler], index: int, weight: Tensor) -> None:
        if not samplers[0].gradients_complete or weight.grad is None:
            return
        gradient, weight.grad = weight.grad, None
        for sampler, share in zip(samplers, gradient.unbind(), strict=True):
            parameter = sampler.parameters[index]
            parameter.grad = share
            sampler.on_gradient(index, parameter)
