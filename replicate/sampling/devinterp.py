"""Gives the samplers of devinterp 2.0.1 the interface of this package.

They are the reference for this package's SGLD and SGNHT, and can replace them. For SGLD,
`SGMCMC.sgld` is used. For SGNHT, it is `devinterp.optim.SGNHT`, which is deprecated but correct: in
version 2.0.1, `SGMCMC.sgnht` never updates its momentum.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from devinterp.optim import SGMCMC, SGNHT
from torch import Tensor, nn

from replicate.sampling.config import SamplerConfig
from replicate.sampling.samplers.base import Sampler


class Devinterp(Sampler):
    """Moves parameters with devinterp's optimizer, once all gradients of a step are complete.

    It seeds torch's global generator, from which devinterp draws the noise.
    """

    @property
    def steady(self) -> bool:
        """Never: its optimizer moves the weights after the backward pass."""
        return False

    def begin(self) -> None:
        """Seeds the generator and makes devinterp's optimizer."""
        torch.manual_seed(self.seed)
        self.optimizer = optimizer(self.parameters, self.config, self.nbeta, self.masks)

    def on_gradient(self, index: int, parameter: nn.Parameter) -> None:
        """Does nothing: `step` uses the gradient."""

    def place(self) -> Tensor:
        """Returns NaN, because devinterp's optimizer does not tell."""
        return torch.full((2,), torch.nan, dtype=torch.float64)

    def step(self) -> None:
        """Moves all parameters."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        super().step()


def optimizer(
    parameters: Sequence[nn.Parameter],
    config: SamplerConfig,
    nbeta: float,
    masks: Sequence[Tensor | None] | None = None,
) -> torch.optim.Optimizer:
    """Creates devinterp's SGLD or SGNHT, anchored at the current values of the parameters.

    Args:
        parameters: the tensors to move.
        config: the sampler and its hyperparameters.
        nbeta: nβ, the inverse temperature times the number of examples.
        masks: for each parameter, a tensor of its shape that is 0 where a weight must not move, or
            None. SGNHT ignores them.

    Raises:
        ValueError: SGNHT has no diffusion factor.
    """
    with warnings.catch_warnings():
        # devinterp warns that SGNHT is deprecated, that nβ is 1, or that σ is not 1
        warnings.simplefilter("ignore")
        if config.sampler == "sgnht":
            if config.diffusion is None:
                raise ValueError("SGNHT needs a diffusion factor")
            sampler = SGNHT(
                list(parameters),
                lr=config.lr,
                diffusion_factor=config.diffusion,
                bounding_box_size=config.bounding_box,
                nbeta=nbeta,
            )
            if config.noise_diffusion is not None:  # after the friction is initialised
                for group in sampler.param_groups:
                    group["diffusion_factor"] = config.noise_diffusion
            return sampler
        pairs = zip(parameters, masks or [None] * len(parameters), strict=True)
        return SGMCMC.sgld(
            [{"params": [parameter], "mask": mask} for parameter, mask in pairs],
            lr=config.lr,
            noise_level=config.noise_level,
            weight_decay=config.weight_decay,
            localization=config.localization,
            nbeta=nbeta,
            bounding_box_size=config.bounding_box,
        )
