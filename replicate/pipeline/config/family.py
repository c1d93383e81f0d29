"""Defines a family: its models, text, sampling and experiments."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from replicate.models.config import TextLoss
from replicate.pipeline.config.curve import Curve
from replicate.pipeline.config.measured import Settings
from replicate.pipeline.config.sources import Model, each_training
from replicate.pipeline.config.values import (
    Boxes,
    Count,
    Distinct,
    Draws,
    FullFormat,
    Grid,
    Name,
    Names,
    NonNegative,
    Positive,
    Range,
    Rates,
    Several,
    Share,
    Steps,
    Strict,
    WeightFormat,
    with_one,
)


class Chains(Strict):
    """The number of chains, and of steps in each: burn_in + draws."""

    chains: Count
    burn_in: Steps
    draws: Draws


class Shuffled(Chains):
    """Chains in each of several shuffles of the data."""

    shuffles: Several


class Sampling(Shuffled):
    """How a family is sampled.

    localization γ, weight_decay μ and bounding_box define the posterior, so they are set here. The
    search rules *efficiency* and *accuracy* choose only the other settings of the sampler.

    Attributes:
        restriction: the parameters that chains move (see `replicate.models.restrictions`).
        implementation: the package whose SGLD and SGNHT are used.
        nbeta: nβ, the inverse temperature times the number of examples.
        neighbours: the models whose chains stage `neighbours` runs again: *all*, or the *first* one
            of the family.
    """

    sampler: Literal["sgld", "sgnht", "rmsprop"]
    restriction: Annotated[tuple[str, ...], Field(min_length=1)] = ("all",)
    implementation: Literal["replicate", "devinterp"] = "replicate"
    nbeta: Positive
    localization: NonNegative
    weight_decay: NonNegative = 0.0
    bounding_box: Positive | None = None
    batch_size: Count
    shuffles: Count
    chains: Several
    neighbours: Annotated[
        Literal["all", "first"], Field(exclude_if=lambda given: given == "all")
    ] = "all"


class SGLDGrid(Strict):
    lr: Rates
    weight_decay: Grid
    localization: Grid
    bounding_box: Boxes


class SGNHTGrid(Strict):
    lr: Rates
    diffusion: Rates
    noise_diffusion: Boxes
    bounding_box: Boxes


class LrRange(Strict):
    lr: Range


class SGNHTRange(LrRange):
    diffusion: Range


class TPE(Strict):
    """A search of each sampler's own hyperparameters, at the family's posterior.

    Each sampler has `trials` trials, which run in batches of `batch`. The first half is spread
    evenly over the ranges. Tree-structured Parzen estimators (TPE) propose the others.
    """

    trials: Count
    batch: Count
    sgld: LrRange
    rmsprop: LrRange
    sgnht: SGNHTRange | None = None


class Search(Chains):
    """How a family's sampler is chosen, by trials on one of its models.

    Attributes:
        model: the model on which the trials run.
        rule: how the trial is chosen. *stability*, the rule of the write-up, takes the greatest
            mean over standard deviation of λ̂ across chains. *efficiency* takes the greatest number
            of effective draws per gradient, among healthy trials of the family's posterior.
            *accuracy* takes the least expected relative error of λ̂ among the same trials, or among
            all trials of the posterior if none is healthy.
    """

    model: str
    rule: Literal["accuracy", "efficiency", "stability"]
    chains: Several
    sgld: SGLDGrid
    sgnht: SGNHTGrid | None = None
    tpe: TPE | None = None


class Transfer(Shuffled):
    """Chains at the chosen step size times each of `factors`, on each of `models`.

    `models: all` means all of the family. Below factor 1, chains are 1/factor times as long.
    """

    models: Names
    factors: Annotated[
        tuple[Positive, ...], Field(min_length=2), Distinct, AfterValidator(with_one)
    ]


class Original(Shuffled):
    """The protocol of November 2023.

    It runs SGLD at nβ = N/ln N for N batches, clips losses of last tokens at a quantile, and
    computes λ̂ with the factor n/ln n for n reviews.

    Attributes:
        characters: reviews with more characters than this are used. One that has too few tokens
            for a window is padded, so its label is padding.
        restart: whether chains start at w*; those of the study's quantised models did not.
    """

    models: Names
    characters: Count
    lr: Positive
    localization: NonNegative
    bounding_box: Positive | None
    batch_size: Count
    chains: Several
    clip_quantile: Share
    restart: bool


class Quantisation(Shuffled):
    """The comparison of weight formats on `models`. Every format has the same batches and noise.

    Attributes:
        restricted: formats in which chains move only what nf4 leaves unquantised.
        full: formats in which chains move everything.
    """

    models: Names
    restricted: Annotated[tuple[WeightFormat, ...], Field(min_length=1), Distinct]
    full: Annotated[tuple[FullFormat, ...], Distinct]


class Family(Strict):
    """Models that are compared with one another, on one text and by one protocol.

    `gradient_checkpointing` and the attributes after it change results by rounding alone.
    `left_unquantised` changes no result, and is not written to results.

    Attributes:
        corpus, tokenizer: names in the blocks `corpora` and `tokenizers`.
        rule: a review needs `length` *tokens*, or more than `original.characters` *characters*.
        length: the number of tokens in a window.
        loss: that of a window's last token (*last*), or the mean of all but the first (*tokens*).
        weights: the format of the weights (see `replicate.models.loading`).
        left_unquantised: patterns of the matrices that bitsandbytes may leave as they are.
        compute_dtype: the format of matrix products. Sums and float32 weights stay in float32.
        gradient_checkpointing: whether backward recomputes each block's activations.
        microbatch_size: examples in one backward pass; None for the whole minibatch.
        gpus_per_model: GPUs that one copy of a model is spread over.
        together: chains of a small model that are computed side by side.
        compiled: whether torch compiles the forward and backward pass of a chain's steps on a GPU,
            for which it needs gcc, and the GPU repeats each step as one CUDA graph. Only for
            float32 and bfloat16 weights on one GPU.
    """

    corpus: str
    tokenizer: str
    rule: Literal["tokens", "characters"] = "tokens"
    length: Several
    loss: Annotated[TextLoss, Field(exclude_if=lambda given: given == "last")] = "last"
    weights: WeightFormat = "float32"
    left_unquantised: Annotated[tuple[str, ...], Field(exclude=True)] = ()
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    device: Literal["any", "cuda"] = "any"
    gradient_checkpointing: bool = False
    microbatch_size: Count | None = None
    gpus_per_model: Count = 1
    together: Count = 1
    compiled: Annotated[bool, Field(exclude_if=lambda given: not given)] = False
    models: Annotated[dict[Name, Model], Field(min_length=1), AfterValidator(each_training)]
    sampling: Sampling
    search: Search
    transfer: Transfer
    original: Original | None = None
    curve: Curve | None = None
    settings: Settings | None = None

    @field_validator("compiled")
    @classmethod
    def of_plain_weights(cls, given: bool, info: ValidationInfo) -> bool:
        """Refuses (`ValueError`) what torch cannot compile as one graph."""
        plain = info.data.get("weights") in ("float32", "bfloat16")
        spread = info.data.get("gpus_per_model", 1) > 1 or info.data.get("together", 1) > 1
        if given and (not plain or spread or info.data.get("gradient_checkpointing")):
            said = "is for float32 or bfloat16 weights on one device, with together: 1"
            raise ValueError(f"{said} and gradient_checkpointing: false; write false")
        return given

    @field_validator("settings")
    @classmethod
    def of_the_family(cls, given: Settings | None, info: ValidationInfo) -> Settings | None:
        """Refuses (`ValueError`) models of other families, and what quantised weights cannot be."""
        for setting in given.at if given else ():
            for name in setting.models or ():
                if name not in info.data.get("models", {name: None}):
                    raise ValueError(f"{name} is no model of this family")
        weights = info.data.get("weights", "float32")
        if given and weights not in ("float32", "nf4", "int8"):
            raise ValueError(f"is not for {weights} weights; write null")
        if given and weights != "float32" and any(each.rescaled for each in given.at):
            raise ValueError(f"rescaled: {weights} weights cannot be; leave it out")
        return given

    @field_validator("curve", "transfer", "original", mode="before")
    @classmethod
    def spell_out(cls, given: Any, info: ValidationInfo) -> Any:
        """Replaces `models: all` by the names of the family's models, in their order."""
        if not isinstance(given, dict):
            return given
        spelt = {key: tuple(x) if isinstance(x, list) else x for key, x in given.items()}
        names = tuple(info.data.get("models", ()))
        return spelt | ({"models": names} if given.get("models") == "all" else {})
