"""Defines a published record, and a record of one model.

Results hold only what was run. No file says what was planned and not run: tables and figures
compare the records with the study's plan (`replicate.study.plan`) and say *not run*.
"""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict

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

    def possible(self) -> Self:
        """Returns the record if a computation can have given its numbers.

        Raises:
            ValueError: it cannot, as with a negative error; the message names the field.
        """
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
        return self


class ModelRecord(Record):
    """A record of one model of a family."""

    identity: ClassVar[tuple[str, ...]] = ("model",)
    family: str
    model: str
