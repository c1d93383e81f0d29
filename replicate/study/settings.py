"""Builds the records of λ̂ that was measured to a precision at settings of params.yaml."""

from __future__ import annotations

import math
from typing import Any

import xarray as xr

from replicate.estimation.estimate import Estimate
from replicate.estimation.regimes import Limits
from replicate.study import collecting
from replicate.study.records import Setting

PAIRS = ("temperature", "degree", "elasticity_gamma", "elasticity_nbeta", "gradient_part")


def setting(
    trace: xr.Dataset, size: str, training: int, limits: Limits, step: int | None = None
) -> Setting:
    """Estimates λ̂ of a model at a setting, and says what it measures.

    Args:
        trace: what `replicate.llc` returned, with the attributes of its unit.
        size: the name of the model without that of its training.
        training: the number of the training.
        limits: the limits of the regimes' rules.
        step: of the training, if the model is a checkpoint.
    """
    estimate, wanted = Estimate(trace, limits), trace.attrs["setting"]
    found, known = estimate.diagnosis, trace.attrs["baseline"]
    values: dict[str, Any] = {name: _known(getattr(found, name)) for name in PAIRS}
    values |= {name: _known(known.get(name)) for name in ("harmonic", "trace")}
    values |= {
        "size": size,
        "training": training,
        "parameters": trace.attrs["task"]["sampled_parameters"],
        "loss": trace.attrs["task"]["loss"],
        "text": wanted["text"],
        "step": wanted["step"] if step is None else step,
        "rescaled": wanted["rescaled"],
        "minimised": wanted.get("minimised"),
        "gradients": trace.attrs["gradients"],
        "baseline_loss": known.get("loss"),
        "regime": found.regime,
        "rise": found.rise if math.isfinite(found.rise) else None,
    }
    return collecting.record(Setting, trace, vars(estimate.result), values)


def _known(pair: Any) -> Any:
    """Returns a value and its error; None if one of them is not known."""
    return list(pair) if pair is not None and all(map(math.isfinite, pair)) else None
