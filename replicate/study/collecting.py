"""Builds the records of results/<study> from what the compute stages wrote.

Each record takes nβ, γ, the learning rate, the loss at w* and the model from the attributes of its
trace.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from math import log
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from replicate.data.json_io import finite
from replicate.estimation import diagnostics, estimators
from replicate.estimation.estimators import Result
from replicate.study import protocol_2023
from replicate.study.records import (
    Estimate,
    Metric,
    OriginalProtocol,
    Provenance,
    Quantised,
    Record,
    ThinnedTrace,
    Transferred,
)

POINTS = 100  # the most that a thinned trace may have

R = TypeVar("R", bound=Record)
Format = tuple[xr.Dataset, NDArray[np.floating], Mapping[str, Any]]


def estimates(trace: xr.Dataset, quantile: float) -> list[Estimate]:
    """Estimates λ̂ of one model by every estimator.

    Args:
        trace: the chains of the main estimate, with their attributes.
        quantile: the quantile of a chain's losses at which `published` and `clipped` clip them.

    Returns:
        One record for each estimator.
    """
    task, nbeta, loss = trace.attrs["task"], _nbeta(trace), _baseline(trace)
    results = estimators.estimates(
        trace, nbeta=nbeta, examples=task["examples"], baseline=loss, quantile=quantile
    )
    coefficients = {"controlled": estimators.coefficient(trace, loss), "paired": 1.0, "plain": 0.0}
    least = estimators.variance(results["controlled"])
    clipped = estimators.clipping(trace, nbeta, loss, quantile)
    explained = estimators.explained(trace, loss)
    rows = []
    for name, result in results.items():
        decides = name == "controlled"
        values = {
            "nbeta": nbeta,
            "localization": trace.attrs["sampler"]["localization"],
            "estimator": name,
            "coefficient": coefficients.get(name),
            "explained": explained if decides else None,
            "clipped": clipped if decides else [],
            "variance_ratio": estimators.variance(result) / least if least > 0 else None,
        }
        rows.append(_record(Estimate, trace, task, vars(result), values))
    return rows


def transferred(trace: xr.Dataset, factor: float) -> Transferred:
    """Estimates λ̂ by `controlled` from chains at `factor` times the chosen step size."""
    values = {"factor": factor, "lr": trace.attrs["sampler"]["lr"]}
    return _record(Transferred, trace, vars(_controlled(trace)), values)


def quantised(moved: str, formats: Sequence[Format]) -> list[Quantised]:
    """Compares one model's weight formats with float32.

    Args:
        moved: what the chains of all formats move, *restricted* or *full*.
        formats: for each format, its trace, the loss at w* of every example (N,) in nats per
            label, and the report on w* that `replicate.models.baseline` wrote.

    Returns:
        One record for each format. It has no rise and no changes if float32 is not in `formats`.
    """
    results = [_controlled(trace) for trace, _, _ in formats]
    names = [trace.attrs["task"]["weights"] for trace, _, _ in formats]
    reference = names.index("float32") if "float32" in names else None
    rows = []
    for (trace, losses_N, report), result, weights in zip(formats, results, names, strict=True):
        values: dict[str, Any] = {"weights": weights, "moved": moved}
        values |= {"rise": None, "rise_error": None, "changes": []}
        if reference is not None:
            rise_N = losses_N.astype(float) - formats[reference][1].astype(float)
            values |= {
                "rise": float(rise_N.mean()),
                "rise_error": float(rise_N.std() / len(rise_N) ** 0.5),
                "changes": result.shuffles / results[reference].shuffles - 1,
            }
        rows.append(_record(Quantised, trace, report, vars(result), values))
    return rows


def original(trace: xr.Dataset, quantile: float) -> OriginalProtocol:
    """Analyses chains of the 2023 protocol. Each chain is clipped at its own `quantile`."""
    nbeta, texts = _nbeta(trace), trace.attrs["texts"]
    found = protocol_2023.analyse(
        trace, nbeta=nbeta, texts=texts, loss=_baseline(trace), quantile=quantile
    )
    values = {
        "nbeta": nbeta,
        "factor": protocol_2023.factor(texts),
        "batches": list(protocol_2023.BATCHES),
        "padded_labels": trace.attrs["padded_labels"],
        "chains": trace.diverged.size,
    }
    return _record(OriginalProtocol, trace, vars(found), values)


def thinned(
    trace: xr.Dataset, vocabulary: int, *, rhat: float, drift: float, local: float
) -> ThinnedTrace:
    """Thins a model's chains to at most `POINTS` points and adds advice on them.

    Losses are averaged over the steps of a point. The running λ̂ is that of its last step.

    Args:
        trace: the chains of the main estimate, with their attributes.
        vocabulary: number of tokens V. A model that guesses all tokens alike has the loss ln V.
        rhat: the greatest R-hat of healthy chains.
        drift: the least p value of the drift test of healthy chains.
        local: the greatest rise of the loss of local chains, as a share of the rise to ln V.
    """
    loss, steps, burn_in = _baseline(trace), trace.sizes["draw"], int((trace.draw < 0).sum())
    values = estimators.controlled(trace, _nbeta(trace), loss)
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
        diagnostics.escape(chains_CxT.values, burn_in, loss, log(vocabulary)),
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
    return _record(ThinnedTrace, trace, columns)


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
    attributes = trace.attrs
    losses = (trace[name].values.astype("<f4").tobytes() for name in ("loss", "init_loss"))
    known = {
        "seed": attributes["seed"],
        "parameters": dict(parameters),
        "windows": attributes["task"]["windows"],
        "repository": repository,
        "revision": revision,
        "weights": None if weights is None else dict(weights),
        "traces": hashlib.sha256(b"".join(losses)).hexdigest(),
        "code": attributes["code"],
    }
    return _record(Provenance, trace, attributes["machine"], known)


def hashes(parts: Mapping[str, Any]) -> dict[str, str]:
    """Returns the SHA-256 of the canonical JSON of each part. Parts hold plain JSON values."""
    texts = {
        name: json.dumps(part, sort_keys=True, separators=(",", ":"))
        for name, part in parts.items()
    }
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


def metrics(rows: Sequence[Estimate]) -> dict[str, dict[str, Any]]:
    """Returns λ̂ by `controlled`, its error, R-hat and ESS of each model, for `dvc metrics`."""
    return {
        row.model: {name: getattr(row, name) for name in Metric.model_fields}
        for row in rows
        if row.estimator == "controlled"
    }


def _nbeta(trace: xr.Dataset) -> float:
    return trace.attrs["sampling"]["nbeta"]


def _baseline(trace: xr.Dataset) -> float:
    """Returns the mean loss at w* over all examples (nats per label)."""
    return trace.attrs["baseline"]["loss"]


def _controlled(trace: xr.Dataset) -> Result:
    return estimators.summarise(estimators.controlled(trace, _nbeta(trace), _baseline(trace)))


def _record(kind: type[R], trace: xr.Dataset, *sources: Mapping[str, Any]) -> R:
    """Builds a record of a trace's model from the fields that the sources hold. If two sources
    hold the same field, the later one is used.
    """
    values: dict[str, Any] = {"steps": trace.sizes["draw"]}
    for source in sources:
        values |= source
    values |= {name: trace.attrs[name] for name in ("family", "model")}
    values = {
        name: finite(value.tolist() if isinstance(value, np.ndarray) else value)
        for name, value in values.items()
        if name in kind.model_fields
    }
    if None in (values.get("interval") or ()):
        values["interval"] = None
    return kind.model_validate(values)
