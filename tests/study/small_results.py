"""Records of a small study: two models of one family, with two estimators each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from replicate.study import records
from replicate.study.records import Record

Results = dict[str, list[Any]]
MODELS = {"small": (1_000, 5.0), "large": (10_000, 20.0)}  # parameters, λ̂


def small_results() -> Results:
    """What `collect` and `read` write of it, as far as results are compared."""
    found: Results = {"search": [trial("small", 1e-4, True), trial("small", 1e-3, False)]}
    for model, (parameters, llc) in MODELS.items():
        found.setdefault("baselines", []).append(baseline(model, parameters))
        found.setdefault("provenance", []).append(provenance(model))
        for estimator in ("controlled", "plain"):
            found.setdefault("estimates", []).append(estimate(model, estimator, parameters, llc))
    found["claims"] = [claim("C1", "supported"), claim("C2", "inconclusive")]
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
    blank: dict[str, Any] = dict.fromkeys(records.Estimate.model_fields)
    blank |= {"family": "f", "model": model, "estimator": estimator, "weights": "float32"}
    blank |= {"parameters": parameters, "sampled_parameters": parameters, "nbeta": 30.0}
    blank |= {"localization": 500.0, "llc": llc, "standard_error": error}
    blank |= {"interval": (llc - 3.18245 * error, llc + 3.18245 * error)}
    blank |= {"chains": 8, "diverged_chains": 0, "steps": 180, "clipped": [], "shuffles": []}
    return records.Estimate.model_validate(blank)


def baseline(model: str, parameters: int) -> records.Baseline:
    """A loss of 1 ± 0.01 nats."""
    blank: dict[str, Any] = dict.fromkeys(records.Baseline.model_fields)
    blank |= {"family": "f", "model": model, "loss": 1.0, "standard_error": 0.01}
    blank |= {"parameters": parameters, "sampled_parameters": parameters}
    blank |= {"sampled": {"w": parameters}, "windows": "text"}
    return records.Baseline.model_validate(blank)


def provenance(model: str) -> records.Provenance:
    """Of a model that was trained on one machine."""
    blank: dict[str, Any] = dict.fromkeys(records.Provenance.model_fields)
    blank |= {"family": "f", "model": model, "seed": 1, "windows": "text", "traces": "t"}
    blank |= {"parameters": {"sampling": "s", "transfer": "t"}, "code": "c", "device": "x86"}
    return records.Provenance.model_validate(blank | {"weights": {"model.safetensors": "w"}})


def trial(model: str, lr: float, chosen: bool) -> records.Trial:
    """One setting of the search."""
    blank: dict[str, Any] = dict.fromkeys(records.Trial.model_fields)
    blank |= {"family": "f", "model": model, "proposed_by": "grid", "sampler": "sgld", "lr": lr}
    blank |= {"weight_decay": 0.0, "localization": 500.0, "healthy": True, "diverged_chains": 0}
    blank |= {"chains": 3, "steps": 120, "chosen_by": [], "chosen": chosen}
    return records.Trial.model_validate(blank)


def claim(id: str, verdict: str) -> records.JudgedClaim:  # noqa: A002
    """A claim with no evidence."""
    blank: dict[str, Any] = dict.fromkeys(records.JudgedClaim.model_fields)
    blank |= {"id": id, "claim": "It holds", "verdict": verdict, "measure": "", "why": ""}
    return records.JudgedClaim.model_validate(blank | {"parts": [], "evidence": []})


def calibrated(llc: float) -> records.Calibrated:
    """λ̂ ± 0.2 of a target whose λ is 50."""
    blank: dict[str, Any] = dict.fromkeys(records.Calibrated.model_fields)
    blank |= {"target": "linear regression", "kind": "regular", "parameters": 100}
    blank |= {"true_llc": 50.0, "multiplicity": 1, "llc": llc, "standard_error": 0.2}
    blank |= {"interval": (llc - 0.4, llc + 0.4), "evaluations": 1, "ladder": []}
    return records.Calibrated.model_validate(blank | {"verdict": "within 1 %"})


def write(folder: Any, results: dict[str, list[Record]]) -> None:
    """Writes records as a folder of results has them."""
    for name, rows in results.items():
        records.write(folder / f"{name}.json", rows)
