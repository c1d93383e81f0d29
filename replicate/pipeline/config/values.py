"""Defines the values in params.yaml: numbers in a range, names, and lists of them."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Whole = Annotated[int, Field(le=10**9)]
Count = Annotated[Whole, Field(ge=1)]
Several = Annotated[Whole, Field(ge=2)]
Draws = Annotated[Whole, Field(ge=4)]
Steps = Annotated[Whole, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
# A name becomes part of paths and of shell commands. A dot would split it in a key of DVC.
Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]*$", max_length=64)]
Printable = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$")]
T = TypeVar("T")


def distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    """Refuses a value that is listed twice, because each value becomes a folder's name.

    Raises:
        ValueError: two values have the same name.
    """
    names = {f"{value:g}" if isinstance(value, float) else value for value in values}
    if len(names) < len(values):
        raise ValueError("each value may be listed only once")
    return values


def with_one(factors: tuple[float, ...]) -> tuple[float, ...]:
    """Refuses (`ValueError`) factors without 1.0; λ̂ at the others is compared with λ̂ at 1.0."""
    if 1.0 not in factors:
        raise ValueError("1.0, which the others are compared with, is not among them")
    return factors


def rising(ends: tuple[float, float]) -> tuple[float, float]:
    """Refuses (`ValueError`) a range whose ends are equal or in the wrong order."""
    if ends[0] >= ends[1]:
        raise ValueError("write the smaller end first")
    return ends


def ordered(steps: tuple[int, ...]) -> tuple[int, ...]:
    """Refuses (`ValueError`) steps that do not rise."""
    if list(steps) != sorted(set(steps)):
        raise ValueError("write each step once, in rising order")
    return steps


Distinct = AfterValidator(distinct)
Names = Annotated[tuple[str, ...], Field(min_length=1), Distinct]
Range = Annotated[tuple[Positive, Positive], AfterValidator(rising)]  # on the logarithmic scale
Grid = Annotated[tuple[NonNegative, ...], Field(min_length=1)]
Rates = Annotated[tuple[Positive, ...], Field(min_length=1)]
Boxes = Annotated[tuple[Positive | None, ...], Field(min_length=1)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
