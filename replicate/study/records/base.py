"""Defines a published record, and a record of one model.

Results hold only what was run. No file says what was planned and not run: tables and figures
compare the records with the study's plan (`replicate.study.plan`) and say *not run*.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict
from scipy.special import stdtrit

SIGNED = {"llc", "mean", "stability", "rise", "descent", "drift", "gradient_norm_squared", "effect"}
SIGNED |= {"coefficient", "explained", "loss", "label_loss", "floor", "label_floor"}
SIGNED |= {"baseline_loss", "exact", "expected"}  # every other number is at least 0
SHARES = {"p_value", "drift_p", "page_p", "share", "importance", "r_squared", "padded_variance"}
AT_MOST = {"diverged_chains": "chains", "sampled_parameters": "parameters", "covered": "repeats"}
AT_MOST |= {"kept": "reviews"}
HELD = ("llc", "share", "effect")  # a record's interval is of the first of these that it has
ROUNDING = 1e-4  # relative; numbers are written with six digits


class Record(BaseModel):
    """One row of a file of results. A field is null only if it is not finite or not known.

    Attributes:
        identity: the fields that together identify a row of a file; () if rows may be equal.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
    identity: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def agree(cls, rows: Sequence[Record]) -> None:
        """Checks that the rows of one file agree with one another.

        Raises:
            ValueError: they do not.
        """

    def possible(self) -> Self:
        """Returns the record if a computation can have given its numbers.

        Raises:
            ValueError: it cannot, as with a negative error; the message names the field.
        """
        for _, value in self:
            for nested in value if isinstance(value, list) else ():
                if isinstance(nested, Record):
                    nested.possible()
        row = {name: value for name, value in self if isinstance(value, int | float)}
        interval: tuple[float, float] | None = getattr(self, "interval", None)
        for name, value in row.items():
            if value < 0 and name not in SIGNED:
                raise ValueError(f"{name} is {value:g}, and it cannot be below 0")
            if value > 1 + ROUNDING and name in SHARES:
                raise ValueError(f"{name} is {value:g}, and it cannot be above 1")
            most = AT_MOST.get(name, name)
            if value > row.get(most, value):
                raise ValueError(f"{name} is {value:g}, more than {most}")
        if interval is not None:
            low, high = interval
            value = next((row[name] for name in HELD if name in row), (low + high) / 2)
            slack = ROUNDING * max(abs(low), abs(high))
            if not low - slack <= value <= high + slack:
                raise ValueError(f"the interval {low:g} to {high:g} does not hold {value:g}")
        shuffles = getattr(self, "shuffles", None)
        if isinstance(shuffles, list) and "llc" in row:
            positive = getattr(self, "estimator", None) == "published"
            ends = () if interval is None else zip(("low", "high"), interval, strict=True)
            follows({**row, **dict(ends)}, [x for x in shuffles if x is not None], positive)
        elif row.get("standard_error") == 0:
            raise ValueError("standard_error is 0, and it must be above 0")
        return self


def follows(row: Mapping[str, float], shuffles: Sequence[float], positive: bool) -> None:
    """Checks that λ̂ is the mean of its shuffles, and that its error and interval are theirs.

    The error is the standard error of the mean, and the interval is Student's. If one shuffle is
    used, its chains give the error, and they are not known here.

    Args:
        row: `llc`, and `standard_error` and the ends `low` and `high` of the interval if they are
            known.
        shuffles: the finite λ̂ of the shuffles.
        positive: whether only shuffles with λ̂ > 0 are used, as by the estimator `published`.

    Raises:
        ValueError: a number is not the one that the shuffles give; the message names the field.
    """
    used = [value for value in shuffles if value > 0 or not positive]
    n = len(used)
    mean = math.fsum(used) / max(n, 1)
    given = {"llc": mean if n else math.nan}
    if n > 1:
        error = (math.fsum((value - mean) ** 2 for value in used) / (n * (n - 1))) ** 0.5
        half = float(stdtrit(n - 1, 0.975)) * error
        given |= {"standard_error": error, "low": mean - half, "high": mean + half}
    slack = ROUNDING * max(abs(value) for value in (*shuffles, *given.values(), 0.0))
    for name, value in given.items():
        if not abs(row.get(name, value) - value) <= slack:
            raise ValueError(f"{name} is {row[name]:g}, and its shuffles give {value:g}")


class ModelRecord(Record):
    """A record of one model of a family."""

    identity: ClassVar[tuple[str, ...]] = ("model",)
    family: str
    model: str
