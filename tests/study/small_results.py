"""Records of a small study: two models of one family, with two estimators each."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from replicate.study import records
from replicate.study.records import Record

R = TypeVar("R", bound=Record)
Results = dict[str, list[Any]]
MODELS = {"small": (1_000, 5.0), "large": (10_000, 20.0)}  # parameters, λ̂


def make(kind: type[R], **values: Any) -> R:
    """A record with nothing in the fields that are not given."""
    fields = {name: _nothing(field.annotation) for name, field in kind.model_fields.items()}
    return kind.model_validate(fields | values)


def _nothing(annotation: Any) -> Any:
    kind = typing.get_origin(annotation) or annotation
    if kind in (typing.Union, types.UnionType):
        return None
    if kind is typing.Literal:
        return typing.get_args(annotation)[0]
    return (0.0, 0.0) if kind is tuple else kind()


def small_results() -> Results:
    """What `collect` and `read` write of it, as far as results are compared."""
    found: Results = {
        "search": [trial("small", 1e-4, True), trial("small", 1e-3, False)],
        "claims": [claim("C1", "supported"), claim("C2", "inconclusive")],
        "windows": [make(records.Extraction, family="f")],
    }
    for model, (parameters, llc) in MODELS.items():
        found.setdefault("training", []).append(make(records.Training, family="f", model=model))
        found.setdefault("traces", []).append(trace(model, llc))
        found.setdefault("baselines", []).append(baseline(model, parameters))
        found.setdefault("provenance", []).append(provenance(model))
        for estimator in ("controlled", "plain"):
            found.setdefault("estimates", []).append(estimate(model, estimator, parameters, llc))
    return found


def changed(file: str, where: dict[str, Any], **change: Any) -> Results:
    """The results with other fields in some rows of a file; a function is called on the row."""
    results, hits = small_results(), 0
    for i, row in enumerate(results[file]):
        if all(getattr(row, key) == value for key, value in where.items()):
            hits += 1
            update = {k: v(row) if isinstance(v, Callable) else v for k, v in change.items()}
            results[file][i] = row.model_copy(update=update)
    assert hits
    return results


def estimate(
    model: str, estimator: str, parameters: int, llc: float, error: float = 0.5
) -> records.Estimate:
    """An estimate from four shuffles: the 95 % interval is Student's of 3 degrees of freedom."""
    shuffles = of_shuffles(llc, error)
    sizes = {"parameters": parameters, "sampled_parameters": parameters}
    fixed = {"weights": "float32", "nbeta": 30.0, "localization": 500.0, "standard_error": error}
    interval = (llc - 3.18245 * error, llc + 3.18245 * error)
    found = {"model": model, "estimator": estimator, "llc": llc, "interval": interval}
    return make(records.Estimate, family="f", **found, **sizes, **fixed, shuffles=shuffles)


def of_shuffles(llc: float, error: float) -> list[float]:
    """λ̂ of four shuffles with this mean and this standard error of the mean."""
    return [llc + sign * 3**0.5 * error for sign in (-1, -1, 1, 1)]


def trace(model: str, llc: float, error: float = 0.5) -> records.ThinnedTrace:
    """The chains of an estimate, one in each shuffle."""
    chains = of_shuffles(llc, error)
    return make(records.ThinnedTrace, family="f", model=model, chain_llc=chains)


def baseline(model: str, parameters: int) -> records.Baseline:
    """A loss of 1 ± 0.01 nats."""
    sizes = {"parameters": parameters, "sampled_parameters": parameters}
    loss = {"loss": 1.0, "standard_error": 0.01, "windows": "text"}
    return make(
        records.Baseline, family="f", model=model, sampled={"w": parameters}, **sizes, **loss
    )


def provenance(model: str) -> records.Provenance:
    """Of a model that was trained on one machine."""
    known = {"family": "f", "model": model, "seed": 1, "code": "c", "device": "x86"}
    known |= {"weights": {"model.safetensors": "w"}}
    return make(records.Provenance, parameters={"sampling": "s", "transfer": "t"}, **known)


def trial(model: str, lr: float, chosen: bool) -> records.Trial:
    """One setting of the search."""
    setting = {"sampler": "sgld", "lr": lr, "localization": 500.0}
    return make(records.Trial, family="f", model=model, chosen=chosen, **setting)


def claim(id: str, verdict: str) -> records.JudgedClaim:  # noqa: A002
    """A claim with no evidence."""
    return make(records.JudgedClaim, id=id, verdict=verdict)


def calibrated(llc: float) -> records.Calibrated:
    """λ̂ ± 0.2 of a target whose λ is 50."""
    found = {"llc": llc, "standard_error": 0.2, "interval": (llc - 0.4, llc + 0.4)}
    return make(records.Calibrated, target="linear regression", true_llc=50.0, **found)


def write(folder: Path, results: Mapping[str, Sequence[Record]]) -> None:
    """Writes records as a folder of results has them."""
    for name, rows in results.items():
        records.write(folder / f"{name}.json", rows)


def write_study(folder: Path, results: Mapping[str, Sequence[Record]]) -> None:
    """Writes what `collect` and `read` write of a study; what is not given was not run."""
    write(folder, dict.fromkeys(records.COLLECTED, ()) | dict(results))
