"""Checks that the files of one study's results agree with one another and with the study's plan.

`collect` writes all of them at once. So a file that is missing or was emptied, or a row that was
changed by hand in one file alone, is found by comparing it with the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from replicate.errors import UserError
from replicate.study import records
from replicate.study.plan import StudyPlan
from replicate.study.records.base import ROUNDING

Found = Mapping[str, Sequence[Any]]  # the records by the name of their file, without `.json`
DEFAULT = "controlled"  # the estimator whose chains `traces` holds


def read_study(plan: StudyPlan, folder: Path) -> dict[str, list[Any]]:
    """Reads every file that `collect` wrote for a study.

    Args:
        plan: the plan of the study.
        folder: results/<study>, which holds the study's records.

    Returns:
        The records by the name of their file, without `.json`.

    Raises:
        UserError: a file is missing or damaged; the files contradict one another; or they hold a
            row that is not in the plan.
    """
    kinds = records.COLLECTED.items()
    found = {name: records.read(folder / f"{name}.json", kind) for name, kind in kinds}
    if wrong := disagreement(found) or unplanned(found, plan):
        remedy = f"run `dvc repro collect@{plan.name}`"
        raise UserError(f"{folder}: {wrong}; {remedy}")
    return found


def disagreement(found: Found) -> str | None:
    """Returns the first thing in which the files of a study contradict one another.

    Args:
        found: the records of every file that `collect` writes.

    Returns:
        A sentence that names the file; None if they agree.
    """
    models = {
        name: {row.model: row.family for row in found[name]}
        for name in ("estimates", "provenance", "traces", "baselines", "training")
    }
    families = {name: {row.family for row in found[name]} for name in ("windows", "search")}
    sampled = models["estimates"] | models["provenance"] | models["traces"]
    trained = {row.model for row in found["provenance"] if row.repository is None}
    estimators = {row.estimator for row in found["estimates"]}
    by_both = {(row.model, row.estimator) for row in found["estimates"]}
    for model, family in sampled.items():
        for name in ("estimates", "provenance", "baselines", "traces"):
            if model not in models[name]:
                return f"{name}.json has no row of {model}, which was sampled"
        for name, known in families.items():
            if family not in known:
                return f"{name}.json has no row of {family}, whose models were sampled"
        if model in trained and model not in models["training"]:
            return f"training.json has no row of {model}, which was trained here"
        if lacking := sorted(x for x in estimators if (model, x) not in by_both):
            return f"estimates.json has no row of {model} by {lacking[0]}"
    default = {row.model: row for row in found["estimates"] if row.estimator == DEFAULT}
    for trace in found["traces"]:
        estimate = default.get(trace.model)
        if estimate is not None and not _same(estimate.shuffles, trace.chain_llc):
            return f"estimates.json has other shuffles of {trace.model} than traces.json has chains"
    return None


def _same(shuffles: Sequence[float | None], chains: Sequence[float | None]) -> bool:
    """Returns whether λ̂ of each shuffle is the mean of its chains that did not diverge."""
    each, rest = divmod(len(chains), max(len(shuffles), 1))
    if rest or not each:
        return False
    slack = ROUNDING * max((abs(value) for value in chains if value is not None), default=0.0)
    for i, value in enumerate(shuffles):
        alive = [x for x in chains[i * each : (i + 1) * each] if x is not None]
        mean = math.fsum(alive) / len(alive) if alive else None
        if (mean is None) != (value is None):
            return False
        if mean is not None and value is not None and abs(mean - value) > slack:
            return False
    return True


def unplanned(found: Found, plan: StudyPlan) -> str | None:
    """Returns the first row of a family or model that is not in a study's plan.

    Tables and claims list what is planned, and would leave such a row out without a word.

    Args:
        found: the records of every file that `collect` writes.
        plan: the plan of the study.

    Returns:
        A sentence that names the file; None if all rows are planned.
    """
    families = {family.name for family in plan.families}
    for name, rows in found.items():
        for row in rows:
            model, family = getattr(row, "model", None), row.family
            if family not in families:
                return f"{name}.json has a row of family {family}, which {plan.name} does not have"
            if model is not None and (
                model not in plan.models or plan.models[model].name != family
            ):
                return f"{name}.json has a row of model {model}, which {family} does not have"
    return None
