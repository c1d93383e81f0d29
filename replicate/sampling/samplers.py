"""From a `Setting` to the sampler that it names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from replicate.sampling.rmsprop import RMSprop
from replicate.sampling.sampler import Sampler
from replicate.sampling.setting import Setting
from replicate.sampling.sgld import SGLD
from replicate.sampling.sgnht import SGNHT

Implementation = Literal["replicate", "devinterp"]


def sampler(
    parameters: Sequence[nn.Parameter],
    anchor: Sequence[Tensor],
    setting: Setting,
    *,
    nbeta: float,
    seed: int,
    burn_in: int,
    masks: Sequence[Tensor | None] | None = None,
    implementation: Implementation = "replicate",
) -> Sampler:
    """A sampler of `parameters` around `anchor`; `burn_in` is the number of steps in which RMSprop adapts, which is always ours.

    Raises:
        UserError: RMSprop without a burn-in.
    """
    if implementation == "devinterp" and setting.sampler != "rmsprop":
        from replicate.sampling.devinterp import Devinterp

        return Devinterp(parameters, anchor, setting, nbeta, seed, masks)
    if setting.sampler == "rmsprop":
        return RMSprop(parameters, anchor, setting, nbeta, seed, burn_in, masks)
    return {"sgld": SGLD, "sgnht": SGNHT}[setting.sampler](parameters, anchor, setting, nbeta, seed, masks)
