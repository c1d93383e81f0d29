"""Finds samplers by name. A new one needs a module and a line in `replicate.sampling.config`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from torch import nn

from replicate.sampling.config import SAMPLERS as CLASSES
from replicate.sampling.config import Implementation, SamplerConfig
from replicate.sampling.samplers.base import Sampler
from replicate.sampling.storage import Anchor

SAMPLERS: dict[str, type[Sampler]] = {
    name: getattr(import_module(f"{__name__}.{name}"), kind) for name, kind in CLASSES.items()
}


def sampler(
    parameters: Sequence[nn.Parameter],
    anchor: Sequence[Anchor],
    config: SamplerConfig,
    *,
    implementation: Implementation = "replicate",
    **options: Any,
) -> Sampler:
    """Creates the sampler that a configuration names.

    Args:
        parameters: the tensors to move.
        anchor: w*, for each parameter.
        config: the sampler and its hyperparameters.
        implementation: the package whose sampler is used. RMSprop and Leimkuhler–Matthews are
            always this package's, because devinterp has none.
        **options: the other arguments of `Sampler`.

    Raises:
        UserError: RMSprop has no burn-in.
        ArgumentError: a stationary start is not possible.
    """
    kind = SAMPLERS[config.sampler]
    if implementation == "devinterp" and config.sampler in ("sgld", "sgnht"):
        from replicate.sampling.devinterp import Devinterp as kind  # noqa: N813

    return kind(parameters, anchor, config, **options)
