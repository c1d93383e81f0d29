"""Defines the types of values in params.yaml, and the sources of texts and tokenizers."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from replicate.sampling.config import SAMPLERS

Whole = Annotated[int, Field(le=10**9)]
Count = Annotated[Whole, Field(ge=1)]
Several = Annotated[Whole, Field(ge=2)]
Draws = Annotated[Whole, Field(ge=4)]
Steps = Annotated[Whole, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
# A name becomes part of paths and of shell commands. In a key of DVC, a dot would split it.
Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]*$", max_length=64)]
Revision = Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
Repository = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")]
File = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*$")]
Local = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$")]
WeightFormat = Literal["float32", "bfloat16", "nf4", "int8", "dequantised", "dequantised-float32"]
FullFormat = Literal["float32", "bfloat16", "dequantised", "dequantised-float32"]
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
    """Refuses factors without 1.0, which the other factors are compared with.

    Raises:
        ValueError: 1.0 is missing.
    """
    if 1.0 not in factors:
        raise ValueError("1.0, which the others are compared with, is not among them")
    return factors


def rising(ends: tuple[float, float]) -> tuple[float, float]:
    """Refuses a range whose ends are equal or in the wrong order.

    Raises:
        ValueError: the first end is not the smaller one.
    """
    if ends[0] >= ends[1]:
        raise ValueError("write the smaller end first")
    return ends


def known(name: str) -> str:
    """Refuses a sampler that does not exist.

    Raises:
        ValueError: `SAMPLERS` does not have the name.
    """
    if name not in SAMPLERS:
        raise ValueError(f"write one of {', '.join(SAMPLERS)}")
    return name


SamplerName = Annotated[str, AfterValidator(known)]
Names = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(distinct)]
Range = Annotated[tuple[Positive, Positive], AfterValidator(rising)]  # on the logarithmic scale
Grid = Annotated[tuple[NonNegative, ...], Field(min_length=1)]
Rates = Annotated[tuple[Positive, ...], Field(min_length=1)]
Boxes = Annotated[tuple[Positive | None, ...], Field(min_length=1)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class GeneratedCorpus(Strict):
    source: Literal["generated"]
    reviews: Count


class HubCorpus(Strict):
    source: Literal["hub"]
    repository: Repository
    revision: Revision
    file: File


class LocalCorpus(Strict):
    source: Literal["local"]
    path: Local


class TrainedTokenizer(Strict):
    source: Literal["trained"]
    vocabulary: Annotated[Whole, Field(gt=257)]


class HubTokenizer(Strict):
    source: Literal["hub"]
    repository: Repository
    revision: Revision


class LocalTokenizer(Strict):
    source: Literal["local"]
    path: Local


Corpus = Annotated[GeneratedCorpus | HubCorpus | LocalCorpus, Field(discriminator="source")]
Tokenizer = Annotated[
    TrainedTokenizer | HubTokenizer | LocalTokenizer, Field(discriminator="source")
]
