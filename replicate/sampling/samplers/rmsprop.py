"""SGLD with a metric G, which RMSprop estimates during the burn-in and which is constant afterwards
(Li et al. 2016, arXiv 1512.07666).

    w ← w − (ε/2)·G⊙[nβ·∇L_B(w) + γ·(w − w*) + μ·w] + σ·√(ε·G)⊙N(0, I),    G = 2m/(√v + m)

    v    running mean of the squared minibatch gradients
    m    median of √v over the weights that have had a gradient (v > 0)

The other symbols are those of SGLD. Hitchcock & Hoogland (2025, arXiv 2507.21449) found that among
several samplers this one represents the local posterior best.

Li et al. use G = 1/(√v + λ) with a constant λ. The gradients of a language model are so small that
this G is almost constant and only changes the step size. Here λ is m, and G is multiplied by 2m.
The weight with the median gradient then moves as under SGLD with the same ε. Weights with larger
gradients move more slowly, none moves more than twice as fast, and the scale of the loss has no
influence.

If G changed along the chain, the update would need Li et al.'s correction Γ = Σⱼ ∂Gᵢⱼ/∂wⱼ; without
it, the chain would sample another posterior. For a constant G, Γ is 0: the chain is exactly SGLD in
the coordinates w/√G, and samples the same posterior as SGLD.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from replicate.errors import UserError
from replicate.sampling.samplers.equation import equation, sqrt, where
from replicate.sampling.samplers.sgld import SGLD

DECAY = 0.99  # decay of the running mean v, as in Li et al.
MEDIAN_OF = 2**20  # the median uses about this many evenly spaced weights


class RMSpropSGLD(SGLD):
    """Samples the same posterior as SGLD, with steps that are scaled by G.

    During the burn-in, all gradients of a step stay in memory until the last one is complete,
    because the median is over all of them.

    Raises:
        UserError: there is no burn-in.
    """

    memory_bytes = 4
    holds_gradients = True

    def begin(self) -> None:
        """Sets v to 0."""
        if self.burn_in < 1:
            raise UserError(
                "burn_in: RMSprop learns its preconditioner in the burn-in, and there is none; "
                "write 1 or more, better 100"
            )
        self.squared_gradients = [
            torch.zeros_like(p, dtype=torch.float32, requires_grad=False) for p in self.parameters
        ]
        self.memory = list(self.squared_gradients)
        self.median = 0.0

    @property
    def adapting(self) -> bool:
        """Whether the chain is still in the burn-in."""
        return self.noise_step < self.burn_in

    @property
    def steady(self) -> bool:
        """Whether the burn-in is over; in it, the host reads m."""
        return super().steady and not self.adapting

    def on_gradient(self, index: int, parameter: nn.Parameter) -> None:
        """Moves a parameter after the burn-in; during it, `step` moves all parameters."""
        if not self.adapting:
            super().on_gradient(index, parameter)

    def step(self) -> None:
        """Ends a step; during the burn-in, it updates v and m and moves all parameters."""
        if self.adapting:
            moved = [index for index, p in enumerate(self.parameters) if p.grad is not None]
            with torch.no_grad():
                self._learn(moved)
            for index in moved:
                self.move(index)
        super().step()

    def _learn(self, moved: Sequence[int]) -> None:
        # The first weight is 1, so v is a mean from the start and is not biased towards 0.
        weight = (1 - DECAY) / (1 - DECAY ** (self.noise_step + 1))
        squares = [self.squared_gradients[index] for index in moved]
        for index, square in zip(moved, squares, strict=True):
            square.lerp_(self.gradient(index).float().square(), weight)
        self.median = float(positive_median(squares).sqrt())

    def coefficients(self) -> tuple[float, ...]:
        """Returns m and the coefficients of SGLD."""
        return np.float32(self.median), *super().coefficients()  # pyright: ignore[reportReturnType]

    @staticmethod
    @equation
    def update(w, gradient, anchor, noise, memory, coefficients):
        """Returns the change of a weight in one step; `memory` is its v."""
        median, force, pull, decay, spread = coefficients
        metric = where(median > 0, (median + median) / (sqrt(memory) + median), 1)
        pulled = force * gradient + pull * (w - anchor) + decay * w
        return spread * sqrt(metric) * noise - metric * pulled

    def preconditioner(self, index: int) -> Tensor:
        """Returns G in the parameter's shape; all 1 before the first gradient."""
        square, median = self.squared_gradients[index], self.median
        return 2 * median / (square.sqrt() + median) if median > 0 else torch.ones_like(square)


def positive_median(tensors: Sequence[Tensor]) -> Tensor:
    """Returns the median of the positive numbers in all tensors together; 0 if there are none.

    Zeros do not count. They belong to weights that have never had a gradient, such as those of
    tokens that did not occur. Of many numbers, about `MEDIAN_OF` are used.
    """
    # Most matrices have an even width: an even stride would visit only some of their columns.
    stride = -(-sum(tensor.numel() for tensor in tensors) // MEDIAN_OF) | 1
    pooled = torch.cat([tensor.flatten()[::stride] for tensor in tensors])
    positive = pooled[pooled > 0]
    return positive.median() if positive.numel() else pooled.new_zeros(())
