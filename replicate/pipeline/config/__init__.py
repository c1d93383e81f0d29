"""Reads params.yaml: `load` returns it as a `Config`."""

from replicate.pipeline.config.family import Family, HubModel, LocalModel, TrainedModel
from replicate.pipeline.config.fields import (
    GeneratedCorpus,
    HubCorpus,
    HubTokenizer,
    LocalCorpus,
    LocalTokenizer,
    TrainedTokenizer,
)
from replicate.pipeline.config.paths import Paths
from replicate.pipeline.config.reading import load, parse
from replicate.pipeline.config.schema import Config

__all__ = [
    "Config",
    "Family",
    "GeneratedCorpus",
    "HubCorpus",
    "HubModel",
    "HubTokenizer",
    "LocalCorpus",
    "LocalModel",
    "LocalTokenizer",
    "Paths",
    "TrainedModel",
    "TrainedTokenizer",
    "load",
    "parse",
]
