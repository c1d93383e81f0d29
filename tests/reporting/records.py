"""Made-up results of everything that a plan lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from replicate.estimation.estimators import NAMES
from replicate.study.plan import FamilyPlan, StudyPlan
from replicate.study.records import COLLECTED, FILES, Record, write

Results = dict[str, list[Record]]
VALUES = yaml.safe_load(Path(__file__).with_name("values.yaml").read_text(encoding="utf-8"))
LOSSES = [[1.2, 1.3, 1.4, 1.3], [1.1, 1.5, None, None]]


def made(file: str, **given: Any) -> Record:
    """Makes a record of a file of results; what is not given has a made-up value."""
    kind = FILES[file]
    return kind(**{name: given.get(name, VALUES.get(name)) for name in kind.model_fields})


def of_study(plan: StudyPlan) -> Results:
    """Makes all records of a study; λ̂ doubles from each model of a family to the next."""
    families = [of_family(family) for family in plan.families]
    found: Results = {
        name: [row for family in families for row in family.get(name, ())] for name in COLLECTED
    }
    found["quantisation"] = [
        made(
            "quantisation", family=plan.models[name].name, model=name, moved=moved, weights=format_
        )
        for name, moved, format_ in plan.formats
    ]
    return found


def of_family(family: FamilyPlan) -> Results:
    """Makes the records of a family."""
    found: Results = {name: [] for name in COLLECTED}

    def add(file: str, **given: Any) -> None:
        found[file].append(made(file, family=family.name, **given))

    add("windows")
    for i, model in enumerate(family.models):
        size = {"parameters": 34_080 * 4**i, "sampled_parameters": 9 * 4**i}
        llc = 5.0 * 2**i
        shuffles = [share * llc for share in (0.96, 0.99, 1.02, 1.03)]
        error = float(np.std(shuffles, ddof=1)) / 2
        interval = (llc - 3.18245 * error, llc + 3.18245 * error)
        value = {"llc": llc, "standard_error": error, "interval": interval}
        add("training", model=model)
        add("baselines", model=model, **size)
        add("provenance", model=model, parameters={"search": "c"}, weights={"w": "d" * 64})
        for name in NAMES:
            add("estimates", model=model, estimator=name, shuffles=shuffles, **value, **size)
        means = [-1850.0, 8300.0, -2200.0, 460.0]
        add("original", model=model, shuffles=means, padded_labels=0.146)
        add("traces", model=model, chains=LOSSES, chain_llc=shuffles)
    for model, nbeta, gamma in family.curve:
        llc, error = 2000 * nbeta / gamma, 100 * nbeta / gamma
        value = {"llc": llc, "standard_error": error, "interval": (llc - error, llc + error)}
        add("curve", model=model, nbeta=nbeta, localization=gamma, **value)
    for model, factor in family.transfer:
        add("transfer", model=model, factor=factor)
    tried = {"model": family.search_model}
    for sampler, lr in (("sgld", 1e-6), ("sgld", 1e-4), ("sgnht", 1e-6), ("sgnht", 1e-4)):
        add("search", sampler=sampler, lr=lr, stability=len(sampler), **tried)
    add("search", sampler="rmsprop", chosen=True, chosen_by=["accuracy"], **tried)
    for name in ("lr", "weight_decay"):
        add("importances", sampler="sgld", hyperparameter=name, interval=(0.8, 0.9), **tried)
    return found


def put(folder: Path, results: Results) -> None:
    """Writes every file of a study; what is not in `results` was not run."""
    for name in COLLECTED:
        write(folder / f"{name}.json", results.get(name, ()))


def put_calibration(folder: Path) -> None:
    """Writes what the calibration found: one target, the right sampler and a wrong one."""
    wrong = made("controls", control="noise × 1.1", llc=5.7, caught=True)
    right = made("controls", control="none", caught=False)
    write(folder / "calibration.json", [made("calibration")])
    kinds = "closed form", "language model"
    coverage = [made("coverage", kind=k, setting=k, interval=(0.93, 0.98)) for k in kinds]
    write(folder / "coverage.json", coverage)
    write(folder / "controls.json", [right, wrong])
