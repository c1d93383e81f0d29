"""Raw outputs of a study's families → results/<study>/*.json. What has not been run is there as
*not run*. No torch.
"""

from __future__ import annotations

from math import log
from pathlib import Path
from typing import Any

import numpy as np

from replicate.data import tensors as arrays
from replicate.data import traces
from replicate.data.json_io import read_json, write_json
from replicate.estimation import diagnostics, estimators
from replicate.pipeline.config import Params, TrainedModel
from replicate.pipeline.stages import provenance
from replicate.study import protocol_2023 as reexamination
from replicate.study.records import (
    COLLECTED,
    Baseline,
    Estimate,
    Extraction,
    Importance,
    Quantised,
    Record,
    Reexamined,
    Trace,
    Training,
    Transferred,
    Trial,
    write,
)

POINTS = 100  # of a thinned trace


def run(params: Params, study: str, data: Path, out: Path) -> None:
    records: dict[str, list[Record]] = {name: [] for name in COLLECTED}
    for family in params.studies[study].families:
        folder = data / family
        text = extraction(params, family, read(folder / "windows" / "statistics.json"))
        records["windows"].append(text)
        records["search"] += trials(params, family, folder / "search")
        records["importances"] += importances(family, folder / "search")
        records["transfer"] += transferred(params, family, folder)
        records["original"] += reexamined(params, family, folder / "original")
        for name in params.models_of(family):
            baseline = read(folder / "baselines" / name / "baseline.json")
            records["baselines"].append(baseline_of(family, name, baseline))
            if isinstance(params.models[name], TrainedModel):
                records["training"].append(
                    training(family, name, read(folder / "models" / name / "training.json"))
                )
            trace = folder / "traces" / name
            records["provenance"].append(provenance.of_model(params, name, folder))
            records["estimates"] += estimates(params, family, name, baseline, trace)
            if trace.exists() and baseline is not None:
                records["traces"].append(thinned(params, family, name, trace, text))
    records["quantisation"] = list(quantised(params, study, data))
    for name, rows in records.items():
        write(out / f"{name}.json", rows)
    write_json(out / "metrics.json", metrics(records["estimates"]))


def read(path: Path) -> Any:
    """A JSON file of a compute stage, None where the stage has not run."""
    return read_json(path) if path.exists() else None


def status(found: object) -> str:
    return "not run" if found is None else "run"


def unknown(kind: type[Record], *known: str) -> dict[str, Any]:
    """null for every field but the known ones."""
    return {field: None for field in kind.model_fields if field not in known}


def extraction(params: Params, family: str, found: dict[str, Any] | None) -> Extraction:
    values = unknown(Extraction) | {"length": params.families[family].length} | (found or {})
    return Extraction.model_validate(values | {"family": family, "status": status(found)})


def training(family: str, name: str, found: dict[str, Any] | None) -> Training:
    values = unknown(Training) | (found or {})
    return Training.model_validate(
        values | {"family": family, "model": name, "status": status(found)}
    )


def baseline_of(family: str, name: str, found: dict[str, Any] | None) -> Baseline:
    values = {key: value for key, value in (found or {}).items() if key in Baseline.model_fields}
    return Baseline.model_validate(
        unknown(Baseline) | values | {"family": family, "model": name, "status": status(found)}
    )


def trials(params: Params, family: str, folder: Path) -> list[Trial]:
    rows = read(folder / "trials.json") or []
    return [
        Trial.model_validate(
            {"family": family, "model": params.families[family].search.model} | row
        )
        for row in rows
    ]


def importances(family: str, folder: Path) -> list[Importance]:
    return [
        Importance.model_validate({"family": family} | row)
        for row in read(folder / "importances.json") or []
    ]


def exact_baseline(folder: Path, name: str) -> tuple[float, int]:
    """The mean loss at w* over all examples, and their number; baseline.json is rounded."""
    losses = arrays.load(folder / "baselines" / name / "losses.safetensors")["losses"]
    return float(losses.mean(dtype=np.float64)), len(losses)


def estimates(
    params: Params, family: str, name: str, baseline: dict[str, Any] | None, path: Path
) -> list[Estimate]:
    """One record an estimator."""
    plan = params.families[family].sampling
    common: dict[str, Any] = {"family": family, "model": name}
    if baseline is not None:
        common |= {key: baseline[key] for key in ("parameters", "sampled_parameters")}
    if baseline is None or not path.exists():
        empty = unknown(Estimate) | {
            "chains": plan.groups * plan.chains,
            "failed_chains": 0,
            "groups": [],
            "clipped": [],
            "status": "not run",
        }
        return [
            Estimate.model_validate(empty | common | {"estimator": estimator})
            for estimator in estimators.NAMES
        ]
    exact, examples = exact_baseline(path.parent.parent, name)
    trace = traces.load(path)
    quantile = params.families[family].original.clip_quantile
    results = estimators.estimates(
        trace, nbeta=plan.nbeta, examples=examples, baseline=exact, quantile=quantile
    )
    coefficients = {"controlled": estimators.coefficient(trace, exact), "paired": 1.0, "plain": 0.0}
    least = estimators.variance(results["controlled"])
    records = []
    for estimator, result in results.items():
        values: dict[str, Any] = vars(result) | {
            "groups": list(map(float, result.groups)),
            "coefficient": coefficients.get(estimator),
            "clipped": estimators.clipping(trace, plan.nbeta, exact, quantile).tolist()
            if estimator == "controlled"
            else [],
            "explained": estimators.explained(trace, exact) if estimator == "controlled" else None,
            "variance_ratio": estimators.variance(result) / least if least > 0 else None,
            "estimator": estimator,
            "status": "run",
        }
        if not np.isfinite(result.interval).all():
            values["interval"] = None
        records.append(
            Estimate.model_validate(common | {key: finite(value) for key, value in values.items()})
        )
    return records


def finite(value: Any) -> Any:
    """null for a number that is not finite, in lists too."""
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def transferred(params: Params, family: str, folder: Path) -> list[Transferred]:
    """One record a model and factor."""
    plan, nbeta = params.families[family].transfer, params.families[family].sampling.nbeta
    records = []
    for name in plan.models:
        for factor in plan.factors:
            path = folder / "transfer" / name / f"{factor:g}"
            values = unknown(Transferred) | {
                "chains": plan.groups * plan.chains,
                "failed_chains": 0,
                "groups": [],
                "status": "not run",
            }
            if path.exists():
                trace = traces.load(path)
                result = estimators.summarise(
                    estimators.controlled(trace, nbeta, exact_baseline(folder, name)[0])
                )
                values = {
                    key: value
                    for key, value in vars(result).items()
                    if key in Transferred.model_fields
                }
                values |= {
                    "groups": list(map(float, result.groups)),
                    "lr": trace.attrs["lr"],
                    "status": "run",
                }
            values |= {"family": family, "model": name, "factor": factor}
            records.append(
                Transferred.model_validate({key: finite(value) for key, value in values.items()})
            )
    return records


def quantised(params: Params, study: str, data: Path) -> list[Quantised]:
    """One record a model and format."""
    plan, family = params.studies[study].quantisation, params.studies[study].quantised
    nbeta, records = params.families[family].sampling.nbeta, []
    if plan is None:
        return []
    for name in plan.models:
        for moved, formats in (("restricted", plan.restricted), ("full", plan.full)):
            reference: dict[str, Any] = {}
            for weights in sorted(formats, key=lambda weights: weights != "float32"):
                path = data / family / "quantisation" / name / f"{moved}-{weights}"
                values = unknown(Quantised) | {
                    "chains": plan.groups * plan.chains,
                    "failed_chains": 0,
                    "groups": [],
                    "changes": [],
                }
                values |= {
                    "family": family,
                    "model": name,
                    "weights": weights,
                    "moved": moved,
                    "status": "not run",
                }
                if path.exists():
                    losses = arrays.load(path / "losses.safetensors")["losses"].astype(float)
                    result = estimators.summarise(
                        estimators.controlled(
                            traces.load(path / "trace"), nbeta, float(losses.mean())
                        )
                    )
                    found = {
                        **read(path / "minimum.json"),
                        **vars(result),
                        "groups": list(map(float, result.groups)),
                        "status": "run",
                    }
                    values |= {
                        key: value for key, value in found.items() if key in Quantised.model_fields
                    }
                    if weights == "float32":
                        reference = {"losses": losses, "groups": np.array(result.groups)}
                    if reference:
                        rises = losses - reference["losses"]
                        values |= {
                            "rise": float(rises.mean()),
                            "rise_error": float(rises.std() / len(rises) ** 0.5),
                        }
                        values["changes"] = (
                            np.array(result.groups) / reference["groups"] - 1
                        ).tolist()
                records.append(
                    Quantised.model_validate({key: finite(value) for key, value in values.items()})
                )
    return records


def reexamined(params: Params, family: str, folder: Path) -> list[Reexamined]:
    """One record a model that the original protocol was run on."""
    plan = params.families[family].original
    records = []
    for name in plan.models:
        lists = {
            key: [] for key in ("groups", "deviations", "luck", "controlled", "batches", "spread")
        }
        values = unknown(Reexamined) | lists | {"status": "not run"}
        if (folder / name).exists():
            trace = traces.load(folder / name)
            known = {key: trace.attrs[key] for key in ("nbeta", "texts", "loss")}
            result = reexamination.reexamine(trace, quantile=plan.clip_quantile, **known)
            values = {
                key: value.tolist() if isinstance(value, np.ndarray) else value
                for key, value in vars(result).items()
            }
            values |= {
                "nbeta": known["nbeta"],
                "factor": reexamination.factor(known["texts"]),
                "status": "run",
            }
            values |= {
                "batches": list(reexamination.BATCHES),
                "padded_labels": trace.attrs["padded_labels"],
            }
        values |= {"family": family, "model": name}
        records.append(
            Reexamined.model_validate({key: finite(value) for key, value in values.items()})
        )
    return records


def thinned(params: Params, family: str, name: str, path: Path, text: Extraction) -> Trace:
    """A model's chains as means of at most `POINTS` equal stretches, and what its page of
    diagnostics says.
    """
    trace, (exact, _) = traces.load(path), exact_baseline(path.parent.parent, name)
    limits = params.diagnostics
    values = estimators.controlled(trace, params.families[family].sampling.nbeta, exact)
    result = estimators.summarise(values)
    width = -(-trace.sizes["draw"] // POINTS)
    chains = trace.loss.stack(chains=("group", "chain")).transpose("chains", "draw")
    starts = np.arange(0, trace.sizes["draw"], width)
    burn_in = int((trace.draw < 0).sum())
    ends = np.minimum(starts + width, trace.sizes["draw"]) - 1
    running, error = (
        np.concatenate([np.full(burn_in, np.nan), column])[ends]
        for column in estimators.running(values)
    )
    alive = (
        values.stack(chains=("group", "chain"))
        .transpose("chains", "draw")
        .dropna("chains", how="all")
    )
    columns: dict[str, Any] = {
        "step": trace.draw.values[starts].tolist(),
        "chains": chains.coarsen(draw=width, boundary="pad").mean().values.tolist(),
        "running": running.tolist(),
        "running_error": error.tolist(),
        "chain_llc": values.mean("draw").values.ravel().tolist(),
        "advice": diagnostics.advise(
            chains.values,
            burn_in,
            alive.values,
            result.interval,
            diagnostics.escape(chains.values, burn_in, exact, log(text.vocabulary))
            if text.vocabulary
            else 0.0,
            rhat_limit=limits.rhat,
            drift_level=limits.drift,
            local_limit=limits.local,
        ),
        "loss_at_w_star": exact,
    }
    return Trace.model_validate(
        {"family": family, "model": name} | {key: finite(value) for key, value in columns.items()}
    )


def metrics(records: list[Record]) -> dict[str, Any]:
    """The default estimator's λ̂ by model, for `dvc metrics show`."""
    rows = [
        record
        for record in records
        if isinstance(record, Estimate)
        and record.estimator == "controlled"
        and record.status == "run"
    ]
    return {
        row.model: {
            "llc": row.llc,
            "standard_error": row.standard_error,
            "rhat": row.rhat,
            "ess": row.ess,
        }
        for row in rows
    }
