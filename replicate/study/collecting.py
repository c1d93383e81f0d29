"""Builds the records of results/<study> from what the compute stages wrote.

Each record takes nβ, γ, the learning rate, the loss at w* and the model from the attributes of its
trace.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from replicate.data.json_io import finite
from replicate.estimation import diagnostics, estimators
from replicate.estimation.estimators import Result
from replicate.estimation.regimes import Limits
from replicate.study import measures
from replicate.study.records import (
    CurvePoint,
    Estimate,
    Metric,
    Provenance,
    Quantised,
    ThinnedTrace,
    Transferred,
)
from replicate.study.records.base import ModelRecord

POINTS = 100  # the most points that a thinned trace may have

R = TypeVar("R", bound=ModelRecord)


def estimates(
    trace: xr.Dataset,
    quantile: float,
    report: Mapping[str, Any] | None = None,
    vocabulary: int | None = None,
    limits: Limits | None = None,
    neighbour: xr.Dataset | None = None,
) -> list[Estimate]:
    """Estimates λ̂ of one model by every estimator, and says what it measures.

    Args:
        trace: the chains of the main estimate, with their attributes.
        quantile: the quantile at which a chain's losses are clipped, for the estimator `published`
            and for the field `clipped`.
        report: the report on w* that `replicate.models.baseline` wrote.
        vocabulary: the number of tokens V; the loss of guessing is ln V.
        limits: the limits of the regimes' rules.
        neighbour: the same chains at a neighbouring γ, if they were run.

    Returns:
        One record for each estimator.
    """
    nbeta, loss, labels = nbeta_of(trace), baseline_of(trace), labels_of(trace)
    results = estimators.estimates(
        trace, nbeta=nbeta, examples=labels, baseline=loss, quantile=quantile
    )
    coefficients = {"controlled": estimators.coefficient(trace, loss), "paired": 1.0, "plain": 0.0}
    least = estimators.variance(results["controlled"])
    clipped = estimators.clipping(trace, nbeta, loss, quantile)
    minimum = measures.at_minimum(trace, report or {})
    measured = measures.of_posterior(trace, minimum, vocabulary, limits, neighbour)
    rows = []
    for name, result in results.items():
        decides = name == "controlled"
        values = {
            "estimator": name,
            "coefficient": coefficients.get(name),
            "explained": estimators.explained(trace, loss) if decides else None,
            "clipped": clipped if decides else [],
            "variance_ratio": estimators.variance(result) / least if least > 0 else None,
        } | (measured if decides else dict.fromkeys(measured))
        rows.append(record(Estimate, trace, vars(result), values))
    return rows


def curve_point(
    trace: xr.Dataset, vocabulary: int | None = None, limits: Limits | None = None
) -> CurvePoint:
    """Estimates λ̂ by `controlled` at one setting of a curve, and says what it measures.

    Args:
        trace: the chains at one nβ and γ, with what is known of w* as the attribute `minimum`.
        vocabulary: the number of tokens V; the loss of guessing is ln V.
        limits: the limits of the regimes' rules.
    """
    measured = measures.of_posterior(trace, measures.noted(trace), vocabulary, limits)
    return record(CurvePoint, trace, vars(_controlled(trace)), measured)


def transferred(trace: xr.Dataset, factor: float) -> Transferred:
    """Estimates λ̂ by `controlled` from chains at `factor` times the chosen step size."""
    return record(Transferred, trace, vars(_controlled(trace)), {"factor": factor})


def quantised(
    moved: str, formats: Sequence[tuple[xr.Dataset, NDArray[np.floating], Mapping[str, Any]]]
) -> list[Quantised]:
    """Compares one model's weight formats with float32.

    Args:
        moved: what the chains of all formats move, *restricted* or *full*.
        formats: for each format, its trace, the loss at w* of every example (N,) in nats per
            label, and the report on w* that `replicate.models.baseline` wrote.

    Returns:
        One record for each format. It has no rise and no changes if float32 is not in `formats`.
    """
    found = {trace.attrs["task"]["weights"]: _controlled(trace) for trace, _, _ in formats}
    losses = {trace.attrs["task"]["weights"]: losses_N for trace, losses_N, _ in formats}
    rows = []
    for trace, losses_N, report in formats:
        weights = trace.attrs["task"]["weights"]
        against: dict[str, Any] = {"rise": None, "rise_error": None, "changes": []}
        if "float32" in found:
            rise_N = losses_N.astype(float) - losses["float32"].astype(float)
            against = {
                "rise": float(rise_N.mean()),
                "rise_error": float(rise_N.std() / len(rise_N) ** 0.5),
                "changes": found[weights].shuffles / found["float32"].shuffles - 1,
            }
        rows.append(
            record(Quantised, trace, report, vars(found[weights]), against | {"moved": moved})
        )
    return rows


def thinned(
    trace: xr.Dataset, vocabulary: int, *, rhat: float, drift: float, local: float
) -> ThinnedTrace:
    """Thins a model's chains to at most `POINTS` points and adds advice on them.

    Losses are averaged over the steps of a point. The running λ̂ is that of its last step.

    Args:
        trace: the chains of the main estimate, with their attributes.
        vocabulary: number of tokens V. A model that guesses all tokens alike has the loss ln V.
        rhat: the limit of R-hat for healthy chains.
        drift: the smallest p value of the drift test for healthy chains.
        local: the greatest rise of the loss for local chains, as a share of the rise to ln V.
    """
    loss, steps, burn_in = baseline_of(trace), trace.sizes["draw"], int((trace.draw < 0).sum())
    values = estimators.controlled(trace, nbeta_of(trace), loss)
    chains_CxT = trace.loss.stack(chains=("shuffle", "chain")).transpose("chains", "draw")
    alive_CxD = values.stack(chains=("shuffle", "chain")).transpose("chains", "draw")
    width = -(-steps // POINTS)
    starts = np.arange(0, steps, width)
    ends = np.minimum(starts + width, steps) - 1
    running, error = (
        np.concatenate([np.full(burn_in, np.nan), column_D])[ends]
        for column_D in estimators.running(values)
    )
    advice = diagnostics.advise(
        chains_CxT.values,
        burn_in,
        alive_CxD.dropna("chains", how="all").values,
        estimators.summarise(values).interval,
        diagnostics.escape(chains_CxT.values, burn_in, loss, math.log(vocabulary)),
        still=estimators.still(trace),
        rhat_limit=rhat,
        drift_level=drift,
        local_limit=local,
    )
    columns = {
        "baseline_loss": loss,
        "step": trace.draw.values[starts],
        "chains": chains_CxT.coarsen(draw=width, boundary="pad").mean().values,
        "running": running,
        "running_error": error,
        "chain_llc": values.mean("draw").values.ravel(),
        "advice": advice,
    }
    return record(ThinnedTrace, trace, columns)


def provenance(
    trace: xr.Dataset,
    *,
    parameters: Mapping[str, str],
    weights: Mapping[str, str | None] | None,
    repository: str | None = None,
    revision: str | None = None,
) -> Provenance:
    """Records which seed, parameters, windows, weights, code and machine made a model's chains.

    Args:
        trace: the chains of the main estimate, with their attributes.
        parameters: the hash of each part of params.yaml that the chains depend on (see `hashes`).
        weights: SHA-256 of each file of the model; None if the hub's cache has none.
        repository: the model's repository on the hub; None for a model that was trained here.
        revision: the commit in that repository.
    """
    losses = (trace[name].values.astype("<f4").tobytes() for name in ("loss", "init_loss"))
    origin: dict[str, Any] = {"parameters": parameters, "weights": weights}
    origin |= {"repository": repository, "revision": revision}
    origin["traces"] = hashlib.sha256(b"".join(losses)).hexdigest()
    return record(Provenance, trace, origin)


def hashes(parts: Mapping[str, Any]) -> dict[str, str]:
    """Returns the SHA-256 of the canonical JSON of each part. Parts hold plain JSON values."""
    found = {}
    for name, part in parts.items():
        text = json.dumps(part, sort_keys=True, separators=(",", ":"))
        found[name] = hashlib.sha256(text.encode()).hexdigest()
    return found


def metrics(rows: Sequence[Estimate]) -> dict[str, dict[str, Any]]:
    """Returns λ̂ by `controlled`, its error, R-hat and ESS of each model, for `dvc metrics`."""
    return {
        row.model: {name: getattr(row, name) for name in Metric.model_fields}
        for row in rows
        if row.estimator == "controlled"
    }


def nbeta_of(trace: xr.Dataset) -> float:
    """Returns nβ of the chains."""
    return trace.attrs["sampling"]["nbeta"]


def labels_of(trace: xr.Dataset) -> int:
    """Returns the number of labels: one for each window, or all its tokens but the first."""
    task = trace.attrs["task"]
    return task["examples"] * (task["length"] - 1 if task.get("loss") == "tokens" else 1)


def baseline_of(trace: xr.Dataset) -> float:
    """Returns the mean loss at w* over all examples (nats per label)."""
    return trace.attrs["baseline"]["loss"]


def _controlled(trace: xr.Dataset) -> Result:
    values = estimators.controlled(trace, nbeta_of(trace), baseline_of(trace))
    return estimators.summarise(values)


def record(kind: type[R], trace: xr.Dataset, *sources: Mapping[str, Any]) -> R:
    """Builds a record of a trace's model.

    Its fields are taken from the trace's attributes (on sampling, sampler, task and machine, then
    all others) and from the sources. If two of them hold the same field, the later one is used.
    """
    attributes = trace.attrs
    blocks = [attributes[name] for name in ("sampling", "sampler", "task", "machine")]
    values: dict[str, Any] = {}
    for source in (*blocks, attributes, *sources):
        values |= source
    values["steps"] = trace.sizes["draw"]
    fields = {
        name: finite(value.tolist() if isinstance(value, np.ndarray) else value)
        for name, value in values.items()
        if name in kind.model_fields
    }
    if None in (fields.get("interval") or ()):
        fields["interval"] = None
    return kind.model_validate(fields)
