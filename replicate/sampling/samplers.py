"""From a `Setting` to the sampler that it names."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from replicate.sampling import devinterp
from replicate.sampling.rmsprop import RMSprop
from replicate.sampling.setting import Setting


def optimizer(parameters: Iterable[nn.Parameter], setting: Setting, nbeta: float, burn_in: int) -> torch.optim.Optimizer:
    """A sampler anchored at the parameters' present values; its noise comes from torch's global generator.

    SGLD and SGNHT are devinterp's; `burn_in` is the number of steps in which RMSprop adapts.
    """
    if setting.sampler == "rmsprop":
        return RMSprop(
            parameters,
            lr=setting.lr,
            nbeta=nbeta,
            burn_in=burn_in,
            localization=setting.localization,
            weight_decay=setting.weight_decay,
            bounding_box=setting.bounding_box,
        )
    return devinterp.optimizer(parameters, setting, nbeta)
