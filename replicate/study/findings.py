"""What of published results is compared with a reference: numbers with their errors, and words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

from scipy.special import stdtridf

from replicate.study.records import (
    Baseline,
    Calibrated,
    Claim,
    Control,
    Coverage,
    Estimate,
    Record,
    Training,
    Trial,
)


@dataclass(frozen=True)
class Found:
    """What one side has: a number, with its standard error and that error's degrees of freedom
    where they are known, or words.
    """

    value: float | str | None
    error: float | None = None
    freedom: float | None = None


Read = dict[tuple[str, str], Found | None]  # by name and part; None: not run


def estimates(rows: Sequence[Record]) -> Read:
    found: Read = {}
    for row in rows:
        assert isinstance(row, Estimate)
        value = Found(row.llc, row.standard_error, freedom(row.interval, row.standard_error))
        found[row.model, row.estimator] = value if row.status == "run" else None
    return found


def baselines(rows: Sequence[Record]) -> Read:
    found: Read = {}
    for row in rows:
        assert isinstance(row, Baseline)
        found[row.model, "all examples"] = (
            Found(row.loss, row.standard_error, inf) if row.status == "run" else None
        )
    return found


def trainings(rows: Sequence[Record]) -> Read:
    found: Read = {}
    for row in rows:
        assert isinstance(row, Training)
        for part, value in (("all tokens", row.loss), ("labels", row.label_loss)):
            found[row.model, part] = Found(value) if row.status == "run" else None
    return found


def settings(rows: Sequence[Record]) -> Read:
    found: Read = {}
    for row in rows:
        assert isinstance(row, Trial)
        if row.chosen:
            knobs = {
                "γ": row.localization,
                "decay": row.weight_decay,
                "box": row.bounding_box,
                "A": row.diffusion,
                "σ²": row.noise_diffusion,
            }
            words = [
                row.sampler,
                f"ε {row.lr:.3g}",
                *(f"{key} {value:g}" for key, value in knobs.items() if value),
            ]
            found[row.family, row.model] = Found(", ".join(words))
    return found


def claims(rows: Sequence[Record]) -> Read:
    found: Read = {}
    for row in rows:
        assert isinstance(row, Claim)
        found[row.id, row.claim] = None if row.verdict == "not run" else Found(row.verdict)
    return found


def calibrated(rows: Sequence[Record]) -> Read:
    found: Read = {}
    for row in rows:
        assert isinstance(row, Calibrated)
        found[row.target, f"λ {row.true_llc:.4g}"] = Found(
            row.llc, row.standard_error, freedom(row.interval, row.standard_error)
        )
    return found


def coverage(rows: Sequence[Record]) -> Read:
    """The share of intervals that hold the truth; its error after Agresti and Coull (1998), which
    is not 0 where all of them do.
    """
    found: Read = {}
    for row in rows:
        assert isinstance(row, Coverage)
        share = (row.covered + 2) / (row.repeats + 4)
        found[row.target, "95 % intervals"] = Found(
            row.share, sqrt(share * (1 - share) / (row.repeats + 4)), inf
        )
    return found


def controls(rows: Sequence[Record]) -> Read:
    found: Read = {}
    for row in rows:
        assert isinstance(row, Control)
        found[row.mistake, row.target] = Found("caught" if row.caught else "not caught")
    return found


def freedom(interval: tuple[float, float] | None, error: float | None) -> float | None:
    """The degrees of freedom of a standard error that a 95 % interval of Student's was made
    with.
    """
    if interval is None or error is None:
        return None
    if error == 0:
        return inf
    t = (interval[1] - interval[0]) / (2 * error)
    found = float(stdtridf(0.975, t)) if t > 1.96 else inf
    return found if found >= 1 else 1.0
