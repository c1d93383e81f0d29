"""devinterp 2.0.1's samplers behind our names.

SGLD (Lau et al. 2023, arXiv 2308.12108):  w ← w − (ε/2)·[nβ·∇L_B(w) + γ(w − w*) + μ·w] + √ε·N(0, I), clipped to |w − w*| ≤ box.
SGNHT (Ding et al. 2014): momentum p, thermostat ξ from A on, p₀ = √ε·N(0, I):
    p ← p − ε·nβ·∇L_B(w) − ξ·p + √(2εA)·N(0, I);  w ← w + p;  ξ ← ξ + (mean(p²) − ε).
The original study's had 0.01 for the A of the noise, whatever A the thermostat began with: `Setting.noise_diffusion`.

`SGMCMC.sgnht` of that version never updates its momentum, so SGNHT is `devinterp.optim.SGNHT`, which is right but deprecated.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from devinterp.optim import SGMCMC, SGNHT
from torch import nn

from replicate.sampling.setting import Setting


def optimizer(parameters: Iterable[nn.Parameter], setting: Setting, nbeta: float) -> torch.optim.Optimizer:
    """A sampler anchored at the parameters' present values; its noise comes from torch's global generator."""
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
                    group["diffusion_factor"] = setting.noise_diffusion  # the thermostat has its start already
            return sampler
        return SGMCMC.sgld(
            list(parameters),
            lr=setting.lr,
            weight_decay=setting.weight_decay,
            localization=setting.localization,
            nbeta=nbeta,
            bounding_box_size=setting.bounding_box,
        )
