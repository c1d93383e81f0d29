"""Defines what single values in params.yaml may be."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Whole = Annotated[int, Field(le=10**9)]
Count = Annotated[Whole, Field(ge=1)]
Several = Annotated[Whole, Field(ge=2)]
Draws = Annotated[Whole, Field(ge=4)]
Steps = Annotated[Whole, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
PATTERNS = {  # what a text may be, and its pattern
    # A name becomes part of paths and of shell commands. A dot would split it in a key of DVC.
    "lower-case letters, digits and hyphens": "^[a-z0-9][a-z0-9-]*$",
    "the 40 digits of a commit, in lower case": "^[0-9a-f]{40}$",
    "owner/name": r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$",
    "a file's path in its repository": r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*$",
    "text without control characters": r"^[^\x00-\x1f\x7f]+$",
}
NAME, REVISION, REPOSITORY, FILE, PRINTABLE = PATTERNS.values()
Name = Annotated[str, Field(pattern=NAME, max_length=64)]
Revision = Annotated[str, Field(pattern=REVISION)]
Repository = Annotated[str, Field(pattern=REPOSITORY)]
File = Annotated[str, Field(pattern=FILE)]
Printable = Annotated[str, Field(pattern=PRINTABLE)]
FullFormat = Literal["float32", "bfloat16", "dequantised", "dequantised-float32"]
WeightFormat = FullFormat | Literal["nf4", "int8"]
T = TypeVar("T")


def distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    """Refuses a value that is listed twice: it would be computed twice, or name a folder twice.

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
Grid = Annotated[tuple[NonNegative, ...], Field(min_length=1), Distinct]
Rates = Annotated[tuple[Positive, ...], Field(min_length=1), Distinct]
Boxes = Annotated[tuple[Positive | None, ...], Field(min_length=1), Distinct]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
