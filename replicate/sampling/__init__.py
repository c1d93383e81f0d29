"""Chains around w*: `engine.sample` runs them; a sampler is what `samplers.sampler` makes of a
`Setting`.
"""

from replicate.sampling.config import Setting
from replicate.sampling.engine import Chain, Plan, Space, assemble, sample, walk

__all__ = ["Chain", "Plan", "Setting", "Space", "assemble", "sample", "walk"]
