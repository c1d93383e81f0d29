"""SGLD in a metric that RMSprop learns in the burn-in and that stands still afterwards.

Li et al. 2016 (arXiv 1512.07666), whom Hitchcock & Hoogland 2025 (arXiv 2507.21449) found to represent the local posterior best:

    w ← w − (ε/2)·G⊙[nβ·∇L_B(w) + γ(w − w*) + μ·w] + σ·√(ε·G)⊙N(0, I), clipped to |w − w*| ≤ box,      G = 2m/(√v + m)

v is the running mean of the squared minibatch gradients and m the median of √v over the weights. Li et al. have G = 1/(√v + λ) with a
constant λ, which on the small gradients of a language model is a constant G, that is, SGLD of another step size. With λ = m, times 2m,
the weight of median gradient moves as under SGLD with the same ε, steeper ones more slowly, none more than twice as fast, and the scale
of the loss drops out.

G that follows the chain would need Li et al.'s correction Γ = Σⱼ ∂Gᵢⱼ/∂wⱼ, or samples another posterior. Here G is frozen when the
burn-in ends: a constant G has Γ = 0, so that the chain is exactly SGLD in the coordinates w/√G, and its posterior is SGLD's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from replicate.errors import UserError
from replicate.sampling import noise
from replicate.sampling.sampler import Sampler, flat
from replicate.sampling.sgld import NO_MASK, coefficients

MEMORY = 0.99  # of the running mean, as Li et al. have it
MEDIAN_OF = 2**20  # weights, evenly spread: enough for a median


class RMSprop(Sampler):
    """While it adapts, the gradients of a step are held until the last has come: the median is over all of them.

    Raises:
        UserError: there is no burn-in to learn G in.
    """

    def begin(self) -> None:
        if self.burn_in < 1:
            raise UserError("burn_in: RMSprop learns its preconditioner in the burn-in, and there is none; write 1 or more, better 100")
        self.squares = [torch.zeros_like(parameter, dtype=torch.float32, requires_grad=False) for parameter in self.parameters]
        self.middle = 0.0

    def receive(self, index: int, parameter: nn.Parameter) -> None:
        if self.steps >= self.burn_in:
            super().receive(index, parameter)

    def step(self) -> None:
        if self.steps < self.burn_in:
            moved = [index for index, parameter in enumerate(self.parameters) if parameter.grad is not None]
            with torch.no_grad():
                self.adapt(moved)
            for index in moved:
                super().receive(index, self.parameters[index])
        super().step()

    def adapt(self, moved: Sequence[int]) -> None:
        """Takes the present gradients into v, and m from v."""
        weight = (1 - MEMORY) / (1 - MEMORY ** (self.steps + 1))  # 1 at first: v is a mean from the start, not one that grows out of 0
        for index in moved:
            self.squares[index].lerp_(self.gradient(index).float().square(), weight)
        self.middle = float(median([self.squares[index] for index in moved]).sqrt())

    def preconditioner(self, index: int) -> Tensor:
        """G, in the parameter's shape; 1 where no gradient has been met yet."""
        square = self.squares[index]
        return 2 * self.middle / (square.sqrt() + self.middle) if self.middle > 0 else torch.ones_like(square)

    def native(self, index: int) -> None:
        parameter, mask = self.parameters[index], self.masks[index]
        tensors = parameter, self.gradient(index), self.anchor[index], self.squares[index]
        held = NO_MASK if mask is None else flat(mask)
        place = self.seed, self.steps, index
        values = coefficients(self.setting, self.nbeta, parameter.dtype)
        noise.sweep(_sweep, parameter.numel(), *map(flat, tensors), held, *place, np.float32(self.middle), *values)

    def portable(self, index: int) -> None:
        values = self.values(self.middle, *map(float, coefficients(self.setting, self.nbeta, torch.float64)))
        tensors = self.parameters[index].data, self.gradient(index), self.anchor[index], self.squares[index], self.masks[index]
        noise.fused(_update)(*tensors, self.place(index, self.steps), values)


def _update(w: Tensor, gradient: Tensor, anchor: Tensor, square: Tensor, mask: Tensor | None, place: Tensor, values: Tensor) -> None:
    middle, force, pull, decay, spread, box = values.to(w.dtype if w.dtype == torch.float64 else torch.float32).unbind()
    metric = torch.where(middle > 0, 2 * middle / (square.sqrt() + middle), 1.0)
    x = noise.normal(w.numel(), place).view_as(w)
    change = spread * metric.sqrt() * x - metric * (force * gradient + pull * (w - anchor) + decay * w)
    if mask is not None:
        change = mask * change
    w.copy_(torch.minimum(torch.maximum(w + change, anchor - box), anchor + box))


@noise.compiled
def _sweep(w, gradient, anchor, square, mask, seed, step, tensor, middle, force, pull, decay, spread, box, first, last):
    x = np.empty((4, noise.LANES), np.float32)
    bits, flat_x = x.view(np.int32), x.reshape(-1)
    for block in range(first, last):
        noise.normals(x, bits, seed, step, tensor, block)
        start = block * noise.BLOCK
        for i in range(min(noise.BLOCK, w.size - start)):
            j = start + i
            here = w[j]
            metric = np.float32(2) * middle / (np.sqrt(square[j]) + middle) if middle > 0 else np.float32(1)
            change = spread * np.sqrt(metric) * flat_x[i] - metric * (force * gradient[j] + pull * (here - anchor[j]) + decay * here)
            if mask.size:
                change *= mask[j]
            w[j] = min(max(here + change, anchor[j] - box), anchor[j] + box)


def median(tensors: list[Tensor]) -> Tensor:
    """Of what is not 0 in the tensors together, 0 where all is: a weight without a gradient, as of a token never met, tells nothing."""
    every = -(-sum(tensor.numel() for tensor in tensors) // MEDIAN_OF) | 1  # odd: never in step with the columns of a matrix
    pooled = torch.cat([tensor.flatten()[::every] for tensor in tensors])
    positive = pooled[pooled > 0]
    return positive.median() if positive.numel() else pooled.new_zeros(())
