"""Chooses the unit of replication of claims on sizes: trainings where there are several of each
size, otherwise the shuffles of one training, whose verdict is about these checkpoints alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from replicate.study.claims.base import Finding, inconclusive
from replicate.study.claims.evidence import Evidence, Family
from replicate.study.claims.trainings import LABELS, MEASURED, UNJUDGED, Table
from replicate.study.claims.verdicts import number
from replicate.study.records import Estimate
from replicate.study.rules import Point, Rules

CHECKPOINTS = "For these checkpoints: "
TRAININGS = (("settings", "llc, standard_error, parameters, training, regime"),)


def at_setting(found: Sequence[Table], point: Point) -> Table | Finding:
    """Returns the settings' table at `point`, or an inconclusive finding if λ̂ of a size is
    missing there.
    """
    where = f"(nβ, γ) = ({point.nbeta:g}, {point.localization:g}), {LABELS[point.loss]}"
    table = next((table for table in found if table.at(point)), None)
    if table is None:
        return inconclusive(f"λ̂ of several trainings of every size at {where} would decide it.")
    if not table.whole:
        lacking = ", ".join(sorted(set(table.sizes) - {row.size for row in table.rows}))
        why = f"At {where}, no λ̂ of {lacking} is judged; chains that are would decide it."
        return inconclusive(why + table.omitted)
    return table


def over_trainings(table: Table, rules: Rules) -> str:
    """Says in words which interval is given and what it is over."""
    over = "trainings"
    if np.isinf(table.layout().freedom):
        over = "the draws of these checkpoints"
    return f"over {over}, {len(table.rows)} λ̂ of {len(table.sizes)} sizes"


def checkpoints(family: Family, evidence: Evidence) -> tuple[Family, str, str]:
    """Prepares a family whose sizes were trained once.

    Args:
        family: the family.
        evidence: the study's, whose estimates know their regime.

    Returns:
        The family without the models whose chains escaped or are not in equilibrium; the beginning
        of a verdict's sentence, with the setting and what was measured; and a sentence on the
        models that were left out, which is empty if none was.
    """
    regimes = {name: _regime(evidence.estimates.get(name)) for name in family.models}
    kept = [i for i, name in enumerate(family.models) if regimes[name] not in UNJUDGED]
    judged = replace(
        family,
        models=tuple(family.models[i] for i in kept),
        parameters_M=family.parameters_M[kept],
        sampled_M=family.sampled_M[kept],
        estimates={name: llc_SxM[:, kept] for name, llc_SxM in family.estimates.items()},
    )
    lost = [f"{name} ({regime})" for name, regime in regimes.items() if regime in UNJUDGED]
    setting = f"({number(family.nbeta)}, {family.localization:g}), {LABELS[family.loss]}"
    start = f"For these checkpoints at (nβ, γ) = {setting}{_measured(judged.models, regimes)}: "
    return judged, start, f" Not judged: {', '.join(lost)}." if lost else ""


def _regime(estimate: Estimate | None) -> str:
    return (estimate.regime if estimate else None) or ""


def _measured(models: Sequence[str], regimes: Mapping[str, str]) -> str:
    """Says what λ̂ of the models is; empty if their chains did not record it."""
    counts = Counter(regimes[name] for name in models if regimes[name])
    kinds = [MEASURED[name] for name in counts]
    return f", where λ̂ is {' or '.join(kinds)}" if kinds else ""


def repeated(family: Family) -> bool:
    """Returns whether a family has several trainings of one size, which are no further sizes."""
    return len(np.unique(family.parameters_M)) < len(family.models)
