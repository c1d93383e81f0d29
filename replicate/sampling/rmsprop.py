"""SGLD in a metric that RMSprop learns in the burn-in and that stands still afterwards.

Li et al. 2016 (arXiv 1512.07666), whom Hitchcock & Hoogland 2025 (arXiv 2507.21449) found to represent the local posterior best:

    w ← w − (ε/2)·G⊙[nβ·∇L_B(w) + γ(w − w*) + μ·w] + √(ε·G)⊙N(0, I), clipped to |w − w*| ≤ box,      G = 2m/(√v + m)

v is the running mean of the squared minibatch gradients and m the median of √v over the weights. Li et al. have G = 1/(√v + λ) with a
constant λ, which on the small gradients of a language model is a constant G, that is, SGLD of another step size. With λ = m, times 2m,
the weight of median gradient moves as under SGLD with the same ε, steeper ones more slowly, none more than twice as fast, and the scale
of the loss drops out.

G that follows the chain would need Li et al.'s correction Γ = Σⱼ ∂Gᵢⱼ/∂wⱼ, or samples another posterior. Here G is frozen when the
burn-in ends: a constant G has Γ = 0, so that the chain is exactly SGLD in the coordinates w/√G, and its posterior is SGLD's.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from replicate.errors import UserError

MEMORY = 0.99  # of the running mean, as Li et al. have it
MEDIAN_OF = 2**20  # weights, evenly spread: enough for a median


class RMSprop(torch.optim.Optimizer):
    """`state[parameter]["preconditioner"]` is G, in the parameter's shape; the noise is from torch's global generator.

    Raises:
        UserError: there is no burn-in to learn G in.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        nbeta: float,
        burn_in: int,
        localization: float = 0.0,
        weight_decay: float = 0.0,
        bounding_box: float | None = None,
    ) -> None:
        if burn_in < 1:
            raise UserError("burn_in: RMSprop learns its preconditioner in the burn-in, and there is none; write 1 or more, better 100")
        super().__init__(list(parameters), {"lr": lr})
        self.nbeta, self.localization, self.weight_decay, self.box = nbeta, localization, weight_decay, bounding_box
        self.left = burn_in  # steps in which G still changes
        self.seen = 0
        self.parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for parameter in self.parameters:
            self.state[parameter]["origin"] = parameter.detach().clone()
            self.state[parameter]["square"] = torch.zeros_like(parameter, dtype=torch.float32)
            self.state[parameter]["preconditioner"] = torch.ones_like(parameter, dtype=torch.float32)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        if self.left:
            self.adapt()
        lr = self.param_groups[0]["lr"]
        for parameter in self.parameters:
            if parameter.grad is None:
                continue
            origin, scale = self.state[parameter]["origin"], self.state[parameter]["preconditioner"]
            force = self.nbeta * parameter.grad + self.localization * (parameter - origin) + self.weight_decay * parameter
            parameter.sub_(0.5 * lr * scale * force)
            parameter.add_((lr * scale).sqrt() * torch.randn(parameter.shape, device=parameter.device))
            if self.box is not None:
                parameter.clamp_(origin - self.box, origin + self.box)

    def adapt(self) -> None:
        """Takes the present gradients into v, and G from v; the last time, v is dropped."""
        self.left, self.seen = self.left - 1, self.seen + 1
        weight = (1 - MEMORY) / (1 - MEMORY**self.seen)  # 1 at first: v is a mean from the start, not one that grows out of 0
        states = [(parameter.grad, self.state[parameter]) for parameter in self.parameters if parameter.grad is not None]
        for gradient, state in states:
            state["square"].lerp_(gradient.float().square(), weight)
        middle = median([state["square"] for _, state in states]).sqrt()
        for _, state in states:
            if middle > 0:
                state["preconditioner"] = 2 * middle / (state["square"].sqrt() + middle)
            if not self.left:
                del state["square"]


def median(tensors: list[Tensor]) -> Tensor:
    """Of what is not 0 in the tensors together, 0 where all is: a weight without a gradient, as of a token never met, tells nothing."""
    every = -(-sum(tensor.numel() for tensor in tensors) // MEDIAN_OF) | 1  # odd: never in step with the columns of a matrix
    pooled = torch.cat([tensor.flatten()[::every] for tensor in tensors])
    positive = pooled[pooled > 0]
    return positive.median() if positive.numel() else pooled.new_zeros(())
