"""Prints λ̂ of a model and the health of its chains. No stage's output depends on this."""

from __future__ import annotations

import xarray as xr

from replicate.data import json_io
from replicate.pipeline.config import Config
from replicate.reporting.tables.models import health
from replicate.study import collecting


def show(config: Config, name: str, trace: xr.Dataset) -> None:
    """Prints λ̂, its error and its diagnostics, and a line for each problem of the chains.

    Args:
        config: all parameters.
        name: the name of the model, and what else distinguishes its chains.
        trace: the chains, with their attributes.
    """
    family = trace.attrs["family"]
    rows = collecting.estimates(trace, config.family_plan(family).clip_quantile)
    print(f"{name}: {health(next(row for row in rows if row.estimator == 'controlled'))}")
    text = json_io.read_json(config.paths.windows(family) / "statistics.json")
    limits = config.diagnostics.healthy
    for line in collecting.thinned(trace, text["vocabulary"], **limits).advice:
        print(f"{name}: warning: {line}")
