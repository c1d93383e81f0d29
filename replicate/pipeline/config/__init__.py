"""Reads params.yaml: `load` returns it as a `Config`."""

from replicate.pipeline.config.family import Family
from replicate.pipeline.config.reading import load, parse
from replicate.pipeline.config.schema import Config

__all__ = ["Config", "Family", "load", "parse"]
