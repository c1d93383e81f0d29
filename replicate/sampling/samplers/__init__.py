"""From a `Setting` to the sampler that it names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from replicate.sampling.config import Setting
from replicate.sampling.samplers.base import Sampler
from replicate.sampling.samplers.rmsprop import RMSprop
from replicate.sampling.samplers.sgld import SGLD
from replicate.sampling.samplers.sgnht import SGNHT
from replicate.sampling.storage import Anchor

Implementation = Literal["replicate", "devinterp"]


def sampler(
    parameters: Sequence[nn.Parameter],
    anchor: Sequence[Anchor],
    setting: Setting,
    *,
    implementation: Implementation = "replicate",
    **options: Any,
) -> Sampler:
    """A sampler of `parameters` around `anchor`; `options` are those of `Sampler`. RMSprop is ours
    in either implementation.

    Raises:
        UserError: RMSprop without a burn-in.
    """
    if implementation == "devinterp" and setting.sampler != "rmsprop":
        from replicate.sampling.devinterp import Devinterp

        return Devinterp(parameters, anchor, setting, **options)
    return {"sgld": SGLD, "sgnht": SGNHT, "rmsprop": RMSprop}[setting.sampler](
        parameters, anchor, setting, **options
    )
