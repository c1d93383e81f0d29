"""Made-up results of everything that a plan asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from replicate.estimation.estimators import NAMES
from replicate.study.plan import FamilyPlan, StudyPlan
from replicate.study.records import (
    COLLECTED,
    Baseline,
    Calibrated,
    Coverage,
    Estimate,
    Extraction,
    Importance,
    NegativeControl,
    OriginalProtocol,
    Provenance,
    Quantised,
    Record,
    ThinnedTrace,
    Training,
    Transferred,
    Trial,
    write,
)

Results = dict[str, Sequence[Record]]
R = TypeVar("R", bound=Record)
VALUES: dict[str, Any] = yaml.safe_load("""
{nbeta: 30.0, localization: 500.0, weights: float32, llc: 4.7, standard_error: 0.078, rhat:
 1.002, monte_carlo_error: 0.128, interval: [4.5, 4.9], ess: 627.5, chains: 8, diverged_chains:
 0, steps: 180, drift: -0.04, drift_p: 0.88, coefficient: 0.97, explained: 0.82, variance_ratio:
 1.0, clipped: [-0.03, -0.04, -0.02, -0.03], shuffles: [4.6, 4.7, 4.8, 4.7], evaluations: 3482,
 gradient_norm: 0.25, gradient_norm_squared: 0.0126, descent: 0.0004, descent_error: 0.0011,
 windows: aaaaaaaaaaaaaaaaaaaa, sampled: {wte.weight: 9}, parameters: 34080, loss: 1.16,
 sampled_parameters: 34080, reviews: 25000, kept: 21307, dropped: 3693, padded_labels: 0, tokens:
 4164604, vocabulary: 768, length: 48, epochs: 1.9, flat: true, label_loss: 1.17, floor: 0.555,
 label_floor: 0.867, factor: 2465.4, deviations: [17.0, 16.0, 18.0, 17.0], baseline_errors:
 [-995.0, 8770.0, -2069.0, 300.0], controlled: [-5.9, -8.0, -8.3, -7.4], r_squared: 0.97,
 batches: [1, 2, 4, 32], spread: [7090.2, 4852.3, 3374.6, 1023.1], padded_variance: 0.962, seed:
 2023, repository: null, revision: null, traces: cccccccccccccccc, code: ffffffffffff, device: a
 processor, threads: 1, versions: {torch: "2.11"}, lr: 0.0001, baseline_loss: 1.16, step: [-2, 0,
 2, 4], running: [null, 4.1, 4.5, 4.7], advice: [], running_error: [null, 0.2, 0.1, 0.1],
 chain_llc: [4, 5, 6, 5, 4, 5, 6, 5], mean: 4.7, proposed_by: grid, standard_deviation: 0.46,
 stability: 10.2, efficiency: 0.44, expected_error: 0.059, step_bias: 0.01, healthy: true,
 chosen_by: [], chosen: false, weight_decay: 0.0, bounding_box: null, diffusion: 0.01,
 noise_diffusion: null, importance: 0.84, rise: 0.0035, resamples: [0.83, 0.85], rise_error:
 0.0005, changes: [0.01, 0.03, 0.02, 0.0], kind: quadratic, target: "quadratic, 50 %", true_llc:
 4.6, multiplicity: 1, exact: 4.69, ladder: [], verdict: within 1 %, repeats: 200, covered: 193,
 share: 0.965, expected: 4.69}
""")
LOSSES = [[1.2, 1.3, 1.4, 1.3], [1.1, 1.5, None, None]]


def made(kind: type[R], **given: Any) -> R:
    """A record with made-up values for all that is not given."""
    return kind(**{name: given.get(name, VALUES.get(name)) for name in kind.model_fields})


def of_study(plan: StudyPlan) -> Results:
    """Everything that a study asks for; λ̂ doubles from each model of a family to the next."""
    families = [of_family(family) for family in plan.families]
    found: Results = {
        name: [row for family in families for row in family.get(name, ())] for name in COLLECTED
    }
    found["quantisation"] = [
        made(Quantised, family=plan.models[model].name, model=model, moved=moved, weights=weights)
        for model, moved, weights in plan.formats
    ]
    return found


def of_family(family: FamilyPlan) -> Results:
    whose = [{"family": family.name, "model": model} for model in family.models]
    sizes = [{"parameters": 34_080 * 4**i, "sampled_parameters": 9 * 4**i} for i in range(9)]
    models = list(zip(whose, sizes, strict=False))
    trials = [(sampler, lr) for sampler in ("sgld", "sgnht") for lr in (1e-6, 1e-4)]
    tried = {"family": family.name, "model": family.search_model}
    chosen = {"chosen": True, "chosen_by": ["accuracy"], "sampler": "rmsprop"}
    means = [-1850.0, 8300.0, -2200.0, 460.0]
    return {
        "windows": [made(Extraction, family=family.name)],
        "training": [made(Training, **each) for each in whose],
        "baselines": [made(Baseline, **each, **size) for each, size in models],
        "provenance": [
            made(Provenance, parameters={"search": "c"}, weights={"w": "d" * 64}, **each)
            for each in whose
        ],
        "estimates": [
            made(Estimate, estimator=name, llc=5.0 * 2**i, shuffles=around(5.0 * 2**i), **a, **b)
            for i, (a, b) in enumerate(models)
            for name in NAMES
        ],
        "traces": [made(ThinnedTrace, chains=LOSSES, **each) for each in (whose[0], whose[-1])],
        "transfer": [
            made(Transferred, family=family.name, model=model, factor=factor)
            for model, factor in family.transfer
        ],
        "original": [original(family.name, model, means) for model in family.models],
        "search": [
            made(Trial, sampler=name, lr=lr, stability=len(name), **tried) for name, lr in trials
        ]
        + [made(Trial, **chosen, **tried)],
        "importances": [
            made(Importance, sampler="sgld", hyperparameter=key, interval=(0.8, 0.9), **tried)
            for key in ("lr", "weight_decay")
        ],
    }


def original(family: str, model: str, llc: Sequence[float]) -> OriginalProtocol:
    """λ̂ of each shuffle by the protocol of 2023."""
    whose = {"family": family, "model": model}
    return made(OriginalProtocol, shuffles=llc, padded_labels=0.146, **whose)


def around(llc: float) -> list[float]:
    """λ̂ of four shuffles."""
    return [share * llc for share in (0.96, 0.99, 1.02, 1.03)]


def put(folder: Path, results: Results) -> None:
    """Writes every file of a study; what is not in `results` was not run."""
    for name in COLLECTED:
        write(folder / f"{name}.json", results.get(name, ()))


def put_calibration(folder: Path) -> None:
    """Writes what the calibration found: one target, the right sampler and a wrong one."""
    write(folder / "control" / "calibration.json", [made(Calibrated)])
    write(folder / "control" / "coverage.json", [made(Coverage, interval=(0.93, 0.98))])
    wrong = made(NegativeControl, control="noise × 1.1", llc=5.7, caught=True)
    right = made(NegativeControl, control="none", caught=False)
    write(folder / "control" / "controls.json", [right, wrong])
