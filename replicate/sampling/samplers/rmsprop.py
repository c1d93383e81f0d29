"""SGLD in a metric that RMSprop learns in the burn-in and that stands still afterwards.

Li et al. 2016 (arXiv 1512.07666), whom Hitchcock & Hoogland 2025 (arXiv 2507.21449) found to
represent the local posterior best:

    w ← w − (ε/2)·G⊙[nβ·∇L_B(w) + γ(w − w*) + μ·w] + σ·√(ε·G)⊙N(0, I), clipped to |w − w*| ≤ box,
                                                                                                       G
                                                                                                       =
                                                                                                       2m/(√v
                                                                                                       +
                                                                                                       m)

v is the running mean of the squared minibatch gradients and m the median of √v over the weights. Li
et al. have G = 1/(√v + λ) with a constant λ, which on the small gradients of a language model is a
constant G, that is, SGLD of another step size. With λ = m, times 2m, the weight of median gradient
moves as under SGLD with the same ε, steeper ones more slowly, none more than twice as fast, and the
scale of the loss drops out.

G that follows the chain would need Li et al.'s correction Γ = Σⱼ ∂Gᵢⱼ/∂wⱼ, or samples another
posterior. Here G is frozen when the burn-in ends: a constant G has Γ = 0, so that the chain is
exactly SGLD in the coordinates w/√G, and its posterior is SGLD's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from replicate.errors import UserError
from replicate.sampling import noise
from replicate.sampling.resting import pack, unpack
from replicate.sampling.samplers.base import Sampler
from replicate.sampling.samplers.sgld import coefficients
from replicate.sampling.storage import flat, opened, parts, precise, rounded, store, stretch, widen

MEMORY = 0.99  # of the running mean, as Li et al. have it
MEDIAN_OF = 2**20  # weights, evenly spread: enough for a median


class RMSprop(Sampler):
    """While it adapts, the gradients of a step are held until the last has come: the median is over
    all of them.

    Raises:
        UserError: there is no burn-in to learn G in.
    """

    def begin(self) -> None:
        if self.burn_in < 1:
            raise UserError(
                "burn_in: RMSprop learns its preconditioner in the burn-in, and there is none; write 1 or more, better 100"
            )
        self.squares = [
            torch.zeros_like(parameter, dtype=torch.float32, requires_grad=False)
            for parameter in self.parameters
        ]
        self.middle = 0.0

    def receive(self, index: int, parameter: nn.Parameter) -> None:
        if self.steps >= self.burn_in:
            super().receive(index, parameter)

    def step(self) -> None:
        if self.steps < self.burn_in:
            moved = [
                index
                for index, parameter in enumerate(self.parameters)
                if parameter.grad is not None
            ]
            with torch.no_grad():
                self.adapt(moved)
            for index in moved:
                super().receive(index, self.parameters[index])
        super().step()

    def adapt(self, moved: Sequence[int]) -> None:
        """Takes the present gradients into v, and m from v."""
        weight = (1 - MEMORY) / (
            1 - MEMORY ** (self.steps + 1)
        )  # 1 at first: v is a mean from the start, not one that grows out of 0
        for index in moved:
            self.squares[index].lerp_(self.gradient(index).float().square(), weight)
        self.middle = float(median([self.squares[index] for index in moved]).sqrt())

    def state(self) -> dict[str, Tensor]:
        return (
            super().state()
            | {"middle": torch.tensor(self.middle, dtype=torch.float64)}
            | pack("square", self.squares)
        )

    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        self.middle = float(state["middle"])
        for square, kept in zip(self.squares, unpack("square", state), strict=True):
            square.copy_(kept)

    def preconditioner(self, index: int) -> Tensor:
        """G, in the parameter's shape; 1 where no gradient has been met yet."""
        square = self.squares[index]
        return (
            2 * self.middle / (square.sqrt() + self.middle)
            if self.middle > 0
            else torch.ones_like(square)
        )

    def native(self, index: int) -> None:
        parameter = self.parameters[index]
        tensors = parameter, self.gradient(index), self.anchor[index], self.squares[index]
        place = self.seed, self.steps, index
        values = np.float32(self.middle), *coefficients(self.setting, self.nbeta, parameter.dtype)
        noise.sweep(
            _sweep, parameter.numel(), *map(flat, tensors), self.held(index), *place, *values
        )

    def portable(self, index: int) -> None:
        parameter, anchor = self.parameters[index], self.anchor[index]
        values = self.values(
            parameter.device,
            self.middle,
            *map(float, coefficients(self.setting, self.nbeta, torch.float64)),
        )
        tensors = (
            parameter.data,
            self.gradient(index),
            parts(anchor),
            self.squares[index],
            self.masks[index],
        )
        noise.fused(_update)(*tensors, stretch(anchor), self.place(index, self.steps), values)


def _update(
    w: Tensor,
    gradient: Tensor,
    anchor: tuple[Tensor, ...],
    square: Tensor,
    mask: Tensor | None,
    stretch: int,
    place: Tensor,
    values: Tensor,
) -> None:
    middle, force, pull, decay, spread, box = values.to(precise(w.dtype)).unbind()
    here, slope, origin = (
        w.reshape(-1).to(precise(w.dtype)),
        gradient.reshape(-1),
        opened(anchor, w.numel(), stretch, w.dtype),
    )
    metric = torch.where(middle > 0, 2 * middle / (square.reshape(-1).sqrt() + middle), 1.0)
    x = noise.normal(w.numel(), place)
    change = spread * metric.sqrt() * x - metric * (
        force * slope + pull * (here - origin) + decay * here
    )
    if mask is not None:
        change = mask.reshape(-1) * change
    store(w, torch.minimum(torch.maximum(here + change, origin - box), origin + box), place)


@noise.compiled
def _sweep(
    w,
    gradient,
    anchor,
    square,
    mask,
    seed,
    step,
    tensor,
    middle,
    force,
    pull,
    decay,
    spread,
    box,
    first,
    last,
):
    x, room = np.empty((4, noise.LANES), np.float32), np.empty((3, noise.BLOCK), np.float32)
    bits, flat_x = x.view(np.int32), x.reshape(-1)
    for block in range(first, last):
        noise.normals(x, bits, seed, step, tensor, block)
        start = block * noise.BLOCK
        size = min(noise.BLOCK, w.size - start)
        here, slope, origin = (
            widen(w, start, size, room[0]),
            widen(gradient, start, size, room[1]),
            widen(anchor, start, size, room[2]),
        )
        for i in range(size):
            metric = (
                np.float32(2) * middle / (np.sqrt(square[start + i]) + middle)
                if middle > 0
                else np.float32(1)
            )
            pulled = force * slope[i] + pull * (here[i] - origin[i]) + decay * here[i]
            change = spread * np.sqrt(metric) * flat_x[i] - metric * pulled
            if mask.size:
                change *= mask[start + i]
            here[i] = min(max(here[i] + change, origin[i] - box), origin[i] + box)
        rounded(w, start, here, seed, step, tensor, block)


def median(tensors: list[Tensor]) -> Tensor:
    """Of what is not 0 in the tensors together, 0 where all is: a weight without a gradient, as of
    a token never met, tells nothing.
    """
    every = (
        -(-sum(tensor.numel() for tensor in tensors) // MEDIAN_OF) | 1
    )  # odd: never in step with the columns of a matrix
    pooled = torch.cat([tensor.flatten()[::every] for tensor in tensors])
    positive = pooled[pooled > 0]
    return positive.median() if positive.numel() else pooled.new_zeros(())
