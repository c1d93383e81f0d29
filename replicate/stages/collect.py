"""Raw outputs of a study's families → results/<study>/*.json. What has not been run is there as *not run*. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from replicate import estimators, traces
from replicate.params import Params, TrainedModel
from replicate.results import FILES, Baseline, Estimate, Extraction, Record, Trace, Training, Trial, write
from replicate.writing import write_json

POINTS = 200  # of a thinned trace


def run(params: Params, study: str, data: Path, out: Path) -> None:
    records: dict[str, list[Record]] = {name: [] for name in FILES}
    families = (params.studies[study].full, params.studies[study].quantised)
    for family in families:
        folder = data / family
        records["windows"].append(extraction(params, family, read(folder / "windows" / "statistics.json")))
        records["search"] += trials(params, family, folder / "search")
        for name in params.models_of(family):
            baseline = read(folder / "baselines" / name / "baseline.json")
            records["baselines"].append(baseline_of(family, name, baseline))
            if isinstance(params.models[name], TrainedModel):
                records["training"].append(training(family, name, read(folder / "models" / name / "training.json")))
            trace = folder / "traces" / name
            records["estimates"] += estimates(params, family, name, baseline, trace)
            if trace.exists() and baseline is not None:
                records["traces"].append(thinned(family, name, baseline, trace))
    for name, rows in records.items():
        write(out / f"{name}.json", rows)
    write_json(out / "metrics.json", metrics(records["estimates"]))


def read(path: Path) -> Any:
    """A JSON file of a compute stage, None where the stage has not run."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


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
    return Training.model_validate(values | {"family": family, "model": name, "status": status(found)})


def baseline_of(family: str, name: str, found: dict[str, Any] | None) -> Baseline:
    values = {key: value for key, value in (found or {}).items() if key in Baseline.model_fields}
    return Baseline.model_validate(unknown(Baseline) | values | {"family": family, "model": name, "status": status(found)})


def trials(params: Params, family: str, folder: Path) -> list[Trial]:
    rows = read(folder / "trials.json") or []
    return [Trial.model_validate({"family": family, "model": params.families[family].search.model} | row) for row in rows]


def estimates(params: Params, family: str, name: str, baseline: dict[str, Any] | None, path: Path) -> list[Estimate]:
    """One record an estimator."""
    plan = params.families[family].sampling
    common: dict[str, Any] = {"family": family, "model": name}
    if baseline is not None:
        common |= {key: baseline[key] for key in ("parameters", "sampled_parameters")}
    if baseline is None or not path.exists():
        empty = unknown(Estimate) | {"chains": plan.groups * plan.chains, "failed_chains": 0, "groups": [], "status": "not run"}
        return [Estimate.model_validate(empty | common | {"estimator": estimator}) for estimator in estimators.NAMES]
    losses = load_file(path.parent.parent / "baselines" / name / "losses.safetensors")["losses"]  # baseline.json is rounded
    exact = float(losses.mean(dtype=np.float64))
    results = estimators.estimates(traces.load(path), nbeta=plan.nbeta, examples=len(losses), baseline=exact)
    records = []
    for estimator, result in results.items():
        values: dict[str, Any] = vars(result) | {
            "groups": list(map(float, result.groups)),
            "estimator": estimator,
            "status": "run",
        }
        if not np.isfinite(result.interval).all():
            values["interval"] = None
        records.append(Estimate.model_validate(common | {key: finite(value) for key, value in values.items()}))
    return records


def finite(value: Any) -> Any:
    """null for a number that is not finite, in lists too."""
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def thinned(family: str, name: str, baseline: dict[str, Any], path: Path) -> Trace:
    """At most `POINTS` means of equal stretches of the trace."""
    trace = traces.load(path)
    width = -(-trace.sizes["draw"] // POINTS)
    coarse = trace.loss.stack(walk=("group", "chain")).coarsen(draw=width, boundary="pad").mean()
    columns = {"mean": coarse.mean("walk"), "low": coarse.min("walk"), "high": coarse.max("walk")}
    steps = (int(trace.draw[0]) + width * np.arange(coarse.sizes["draw"])).tolist()
    values = {key: finite(column.values.tolist()) for key, column in columns.items()}
    return Trace.model_validate({"family": family, "model": name, "loss_at_w_star": baseline["loss"], "step": steps} | values)


def metrics(records: list[Record]) -> dict[str, Any]:
    """The default estimator's λ̂ by model, for `dvc metrics show`."""
    rows = [record for record in records if isinstance(record, Estimate) and record.estimator == "controlled" and record.status == "run"]
    return {row.model: {"llc": row.llc, "standard_error": row.standard_error, "rhat": row.rhat, "ess": row.ess} for row in rows}
