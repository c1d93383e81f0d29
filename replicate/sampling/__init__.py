"""Runs chains of samplers around w* and records their losses.

`sample` runs all chains of a `SamplingConfig` with the sampler that a `SamplerConfig` names;
`config.SAMPLERS` lists the samplers. The parts that need torch are imported when they are first
used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from replicate.sampling.chains import FIELDS, Chain, assemble
from replicate.sampling.config import SamplerConfig, SamplingConfig

if TYPE_CHECKING:
    from replicate.sampling.engine import run_pieces, sample
    from replicate.sampling.task import Task

__all__ = [
    "FIELDS",
    "Chain",
    "SamplerConfig",
    "SamplingConfig",
    "Task",
    "assemble",
    "run_pieces",
    "sample",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "task" if name == "Task" else "engine"
    return getattr(import_module(f"{__name__}.{module}"), name)
