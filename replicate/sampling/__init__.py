"""Chains around w*: `engine.sample` runs them; a sampler is what `samplers.optimizer` makes of a `Setting`."""

from replicate.sampling.engine import Chain, sample
from replicate.sampling.setting import Setting

__all__ = ["Chain", "Setting", "sample"]
