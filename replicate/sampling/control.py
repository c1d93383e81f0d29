"""Reduces the noise of minibatches by the noise that they have at w*.

    L_B(w) − Δ·(∇L_B(w*) − ∇L(w*)),    Δ = w − w*

has the same mean over minibatches B as L_B(w), and so have its gradients. Where all minibatches
have nearly the same Hessian between w* and w, both have much less noise (Baker et al. 2019, doi
10.1007/s11222-018-9826-2). A step takes two gradients, because that at w* is computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from replicate.progress import Advance
from replicate.sampling.stack import Stack
from replicate.sampling.storage import Anchor, dense
from replicate.sampling.task import Task


class Control:
    """Holds what a task's control variate needs of w*.

    Args:
        task: the loss and the parameters, which are at w* now.
        anchor: w*, for each parameter.
        chains: C, the number of chains; they run side by side if the task has a stacked loss.
        examples: N, the number of examples whose mean loss is L.
        batch_size: the number of examples in a backward pass.
        advance: is told how many more of these passes are done.

    Attributes:
        passes: the number of backward passes that ∇L(w*) took.
    """

    def __init__(
        self,
        task: Task,
        anchor: Sequence[Anchor],
        chains: int,
        examples: int,
        batch_size: int,
        advance: Advance,
    ) -> None:
        self.task, self.anchor = task, anchor
        self.leaves = Stack(anchor, chains).weights if task.stacked else []
        totals = [np.zeros(p.shape) for p in task.parameters]
        chunks = torch.arange(examples).split(batch_size)
        self.passes = len(chunks)
        for index_B in chunks:
            total = task.loss(index_B.to(task.parameters[0].device)).sum()
            for found, each in zip(
                totals, self._differentiate(total, task.parameters), strict=True
            ):
                found += each.double().cpu().numpy()
            advance()
        self.mean = [
            torch.from_numpy(total / examples).to(p.device, p.dtype)
            for total, p in zip(totals, task.parameters, strict=True)
        ]

    def side_by_side(self, weights: Sequence[Tensor], index_CxB: Tensor) -> Tensor:
        """Returns the losses (C, B) of C chains with weights (C, …), less the noise at w*."""
        loss = self.task.stacked
        assert loss is not None
        total = loss(self.leaves, index_CxB).mean(dim=1).sum()
        noise_C = [
            ((w - at) * (gradient - mean)).flatten(1).sum(dim=1)
            for w, at, gradient, mean in zip(
                weights,
                map(dense, self.anchor),
                self._differentiate(total, self.leaves),
                self.mean,
                strict=True,
            )
        ]
        return loss(weights, index_CxB) - torch.stack(noise_C).sum(dim=0)[:, None]

    def alone(self, index_B: Tensor) -> Tensor:
        """Returns the losses (B,) at the parameters of the task, less the noise at w*."""
        parameters, origin = self.task.parameters, [dense(each) for each in self.anchor]
        here = [p.detach().clone() for p in parameters]
        self._place(origin)
        found = self._differentiate(self.task.loss(index_B).mean(), parameters)
        self._place(here)
        noise = [
            ((p - at) * (gradient - mean)).sum().to(parameters[0].device)
            for p, at, gradient, mean in zip(parameters, origin, found, self.mean, strict=True)
        ]
        losses_B = self.task.loss(index_B)
        return losses_B - torch.stack(noise).sum().to(losses_B.device)

    @torch.no_grad()
    def _place(self, weights: Sequence[Tensor]) -> None:
        for parameter, weight in zip(self.task.parameters, weights, strict=True):
            parameter.copy_(weight)

    def _differentiate(self, total: Tensor, at: Sequence[Tensor]) -> Sequence[Tensor]:
        """Returns the gradients; 0 for a parameter on which the loss does not depend."""
        found = torch.autograd.grad(total, at, allow_unused=True, materialize_grads=True)
        return cast(Sequence[Tensor], found)
