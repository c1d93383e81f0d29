"""devinterp 2.0.1's samplers behind the interface of this package: the reference for SGLD and
SGNHT, and an alternative to them.

SGLD is `SGMCMC.sgld`. SGNHT is `devinterp.optim.SGNHT`, which is deprecated but right; that
version's `SGMCMC.sgnht` never updates its momentum.
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
    """Draws noise from torch's global generator, which it seeds, and holds all gradients of a step
    until its end.
    """

    def begin(self) -> None:
        """Seeds the generator and makes devinterp's optimizer."""
        torch.manual_seed(self.seed)
        self.optimizer = optimizer(self.parameters, self.config, self.nbeta, self.masks)

    def on_gradient(self, index: int, parameter: nn.Parameter) -> None:
        """Leaves the gradient to `step`."""

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
    """Makes devinterp's SGLD or SGNHT, anchored at the parameters' present values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that SGNHT is deprecated, and that nβ may be 1
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
            if config.noise_diffusion is not None:  # the friction has started at `diffusion`
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
