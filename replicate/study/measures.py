"""Builds the fields of a record that say what λ̂ measures, from the chains and from w*."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from replicate.estimation import posterior, regimes
from replicate.estimation.posterior import Measured
from replicate.estimation.regimes import AtMinimum, Limits

PAIRS = ("elasticity_nbeta", "elasticity_gamma", "degree", "temperature", "gradient_part")
FIELDS = ("regime", *PAIRS, "rise")  # of a `Diagnosis`


def at_minimum(trace: xr.Dataset, report: Mapping[str, Any]) -> AtMinimum:
    """Returns what a report on w* tells of the loss there, at the nβ and γ of a trace.

    Args:
        trace: the chains, with their attributes.
        report: what `replicate.models.baseline` wrote; empty if it was not run.
    """
    gradient = Measured(report.get("gradient_norm_squared", math.nan))
    if (curvature := report.get("curvature")) is None:
        return AtMinimum(gradient=gradient)
    alpha = trace.attrs["sampler"]["localization"] / trace.attrs["sampling"]["nbeta"]
    harmonic = regimes.UNKNOWN
    if alpha > max(0.0, -curvature["lowest"]):
        values, weights = (np.array(curvature[f"{k}_PxK"], float) for k in ("values", "weights"))
        each_P = np.nansum(weights * values / (values + alpha), axis=1) * curvature["size"] / 2
        harmonic = Measured(float(each_P.mean()))
    found = Measured(curvature["trace"], curvature["trace_error"])
    return AtMinimum(trace=found, harmonic=harmonic, gradient=gradient)


def noted(trace: xr.Dataset) -> AtMinimum:
    """Returns what a trace of a curve says of w*, which was measured before its chains ran."""
    names = {"gradient_squared": "gradient"}
    known = trace.attrs["minimum"].items()
    return AtMinimum(**{names.get(str(name), str(name)): Measured(*pair) for name, pair in known})


def of_posterior(
    trace: xr.Dataset,
    minimum: AtMinimum,
    vocabulary: int | None,
    limits: Limits | None,
    neighbour: xr.Dataset | None = None,
) -> dict[str, Any]:
    """Returns what chains tell about their posterior; null where it is not known.

    Args:
        trace: the chains, with their attributes.
        minimum: what is known of the loss at w*.
        vocabulary: the number of tokens V; the loss of guessing is ln V.
        limits: the limits of the regimes' rules.
        neighbour: the same chains at a neighbouring γ. If there are any, the elasticity in γ is
            that of the pair.
    """
    found: dict[str, Any] = dict.fromkeys((*FIELDS, "dilation", "harmonic"))
    if "virial" not in trace or trace.virial.isnull().all():
        return found
    baseline = trace.attrs["baseline"]["loss"]
    pair = None if neighbour is None else posterior.coupled(trace, neighbour, baseline)
    diagnosis = regimes.diagnose(
        trace,
        baseline=baseline,
        guess=math.nan if vocabulary is None else math.log(vocabulary),
        minimum=minimum,
        pair=pair if pair and math.isfinite(pair.error) else None,
        limits=limits,
    )
    found |= {name: getattr(diagnosis, name) for name in FIELDS}
    found["dilation"] = posterior.measure(trace, baseline).elasticity_gamma
    # too few windows can make the harmonic part negative near a negative curvature
    found["harmonic"] = minimum.harmonic.value if minimum.harmonic.value > 0 else None
    return {name: value if _known(value) else None for name, value in found.items()}


def _known(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(math.isfinite, value))
    return not isinstance(value, float) or math.isfinite(value)
