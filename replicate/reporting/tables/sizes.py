"""Makes the table of λ̂ at the settings of a study: a row for each setting and size."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from replicate.reporting.results import Study
from replicate.reporting.table import Table, tabulate
from replicate.study.claims.trainings import LABELS
from replicate.study.records import Setting
from replicate.study.records.settings import ends


@dataclass(frozen=True)
class Summary:
    """λ̂ of the trainings of one size at one setting.

    Attributes:
        llc: the geometric mean of λ̂.
        spread: the standard deviation of ln λ̂ over trainings; None for one training.
        error: the root mean square of the Monte-Carlo errors of ln λ̂.
        degree: the mean of E[V]/λ̂.
        harmonic: the mean of ½·tr[H(H + α)⁻¹].
        regimes: each regime, with the number of trainings if there are several regimes.
    """

    parameters: int
    trainings: int
    llc: float | None
    spread: float | None
    error: float | None
    degree: float | None
    harmonic: float | None
    regimes: str


def measured(study: Study) -> Table:
    """Tabulates λ̂ at each setting, by size, at the end of training."""
    found: dict[tuple[str, str, float, float], list[Setting]] = {}
    ordered = sorted(study.settings, key=lambda row: (row.nbeta, row.localization, row.parameters))
    for row in ends(ordered):
        key = (row.size, _words(row), row.nbeta, row.localization)
        found.setdefault(key, []).append(row)
    summaries = {key: summary(rows) for key, rows in found.items()}
    return tabulate("measured", found, summaries, study=study)


def summary(rows: Sequence[Setting]) -> Summary:
    """Summarises the trainings of one size."""
    above = [row for row in rows if (row.llc or 0) > 0]
    logs = np.log([row.llc or math.nan for row in above])
    errors = [(row.standard_error or math.nan) / (row.llc or math.nan) for row in above]
    counts = Counter(row.regime for row in rows)
    several = len(counts) > 1
    return Summary(
        rows[0].parameters,
        len(rows),
        float(np.exp(logs.mean())) if len(above) == len(rows) else None,
        float(logs.std(ddof=1)) if len(above) == len(rows) > 1 else None,
        float(np.sqrt(np.square(errors).mean())) if above else None,
        _mean([row.degree for row in rows]),
        _mean([row.harmonic for row in rows]),
        ", ".join(f"{name} ({count})" if several else name for name, count in counts.items()),
    )


def over_training(study: Study) -> dict[int | None, tuple[list[Setting], float]]:
    """Returns λ̂ of the trainings that have checkpoints, by step, and the slope of ln λ̂ on ln d.

    The smallest model is the first of the rows, and None is the end of training. Steps without λ̂
    of each of these trainings are left out.
    """
    rows = sorted(study.settings, key=lambda row: (row.step or math.inf, row.parameters))
    known = {_place(row) for row in rows if row.step is not None}
    found: dict[int | None, list[Setting]] = {}
    for row in rows:
        if _place(row) in known and not row.rescaled and not row.minimised and (row.llc or 0) > 0:
            found.setdefault(row.step, []).append(row)
    every = {step: mine for step, mine in found.items() if len(mine) == len(known) > 1}
    return {step: (mine, _slope(mine)) for step, mine in every.items()}


def _place(row: Setting) -> tuple[str | float, ...]:
    return row.course, row.loss, row.text, row.nbeta, row.localization


def _slope(rows: Sequence[Setting]) -> float:
    x_M, y_M = np.log([(row.parameters, row.llc or math.nan) for row in rows]).T
    return float(np.polyfit(x_M, y_M, 1)[0])


def _words(row: Setting) -> str:
    """Returns the loss, and what else is special about a setting."""
    words = [LABELS[row.loss]]
    words += ["its own text"] if row.text == "sampled" else []
    words += [f"rescaled ({row.rescaled})"] if row.rescaled else []
    words += [f"minimised again ({row.minimised} steps)"] if row.minimised else []
    return ", ".join(words)


def _mean(pairs: Sequence[tuple[float, float] | None]) -> float | None:
    known = [pair[0] for pair in pairs if pair is not None]
    return float(np.mean(known)) if known else None
