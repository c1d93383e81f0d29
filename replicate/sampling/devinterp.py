"""devinterp 2.0.1's samplers behind our names: the reference that ours are held against, and a
choice in params.yaml.

SGLD is `SGMCMC.sgld`. `SGMCMC.sgnht` of that version never updates its momentum, so SGNHT is
`devinterp.optim.SGNHT`, which is right but deprecated. The original study's had 0.01 for the A of
the noise, whatever A the thermostat began with: `Setting.noise_diffusion`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from devinterp.optim import SGMCMC, SGNHT
from torch import Tensor, nn

from replicate.sampling.config import Setting
from replicate.sampling.samplers.base import Sampler


class Devinterp(Sampler):
    """Its noise comes from torch's global generator, seeded with `seed`; all gradients of a step
    are held until it ends.
    """

    rests = False  # what its optimizers keep is theirs

    def begin(self) -> None:
        torch.manual_seed(self.seed)
        self.optimizer = optimizer(self.parameters, self.setting, self.nbeta, self.masks)

    def receive(self, index: int, parameter: nn.Parameter) -> None:
        pass

    def step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        super().step()

    def native(self, index: int) -> None:
        raise NotImplementedError

    portable = native


def optimizer(
    parameters: Sequence[nn.Parameter],
    setting: Setting,
    nbeta: float,
    masks: Sequence[Tensor | None] | None = None,
) -> torch.optim.Optimizer:
    """devinterp's SGLD or SGNHT, anchored at the parameters' present values."""
    groups = [
        {"params": [parameter], "mask": mask}
        for parameter, mask in zip(parameters, masks or [None] * len(parameters), strict=True)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the deprecation, and of nβ = 1
        if setting.sampler == "sgnht":
            if setting.diffusion is None:
                raise ValueError("SGNHT needs a diffusion factor")
            sampler = SGNHT(
                list(parameters),
                lr=setting.lr,
                diffusion_factor=setting.diffusion,
                bounding_box_size=setting.bounding_box,
                nbeta=nbeta,
            )
            if setting.noise_diffusion is not None:
                for group in sampler.param_groups:
                    group["diffusion_factor"] = (
                        setting.noise_diffusion
                    )  # the thermostat has its start already
            return sampler
        return SGMCMC.sgld(
            groups,
            lr=setting.lr,
            noise_level=setting.noise_level,
            weight_decay=setting.weight_decay,
            localization=setting.localization,
            nbeta=nbeta,
            bounding_box_size=setting.bounding_box,
        )
