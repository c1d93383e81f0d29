"""Defines a family in params.yaml: its models, its text, its sampling and its experiments."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from replicate.pipeline.config.fields import (
    Boxes,
    Count,
    Draws,
    Grid,
    Name,
    Names,
    NonNegative,
    Positive,
    Range,
    Rates,
    Repository,
    Revision,
    SamplerName,
    Several,
    Share,
    Steps,
    Strict,
    WeightFormat,
    distinct,
    with_one,
)


class Sampling(Strict):
    """How a family is sampled: shuffles × chains, each of burn_in + draws steps.

    localization γ, weight_decay μ and bounding_box define the posterior, so they are set here. The
    search rules *efficiency* and *accuracy* choose only the other settings of the sampler.

    Attributes:
        restriction: the parameters that chains move (see `replicate.models.restrictions`).
        implementation: the package whose SGLD and SGNHT are used.
        nbeta: nβ, the inverse temperature times the number of examples.
    """

    sampler: SamplerName
    restriction: Annotated[tuple[str, ...], Field(min_length=1)] = ("all",)
    implementation: Literal["replicate", "devinterp"] = "replicate"
    nbeta: Positive
    localization: NonNegative
    weight_decay: NonNegative = 0.0
    bounding_box: Positive | None = None
    batch_size: Count
    shuffles: Count
    chains: Several
    burn_in: Steps
    draws: Draws


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


class SGNHTRange(Strict):
    lr: Range
    diffusion: Range


class TPE(Strict):
    """A search of each sampler's own knobs, at the family's posterior.

    Each sampler has `trials` trials, which run in batches of `batch`. The first half is spread
    evenly over the ranges. Tree-structured Parzen estimators (TPE) propose the others.
    """

    trials: Count
    batch: Count
    sgld: LrRange
    rmsprop: LrRange
    sgnht: SGNHTRange | None = None


class Search(Strict):
    """How a family's sampler is chosen, by trials on one of its models.

    Attributes:
        model: the model on which the trials run.
        rule: how the trial is chosen. *stability*, the rule of the write-up, takes the greatest
            mean over standard deviation of λ̂ across chains. *efficiency* takes the most effective
            draws per gradient, among healthy trials of the family's posterior. *accuracy* takes the
            least expected relative error of λ̂ among the same trials.
    """

    model: str
    rule: Literal["accuracy", "efficiency", "stability"]
    chains: Several
    burn_in: Steps
    draws: Draws
    sgld: SGLDGrid
    sgnht: SGNHTGrid | None = None
    tpe: TPE | None = None


class Transfer(Strict):
    """Chains at the chosen step size times each of `factors`, on each of `models`.

    `models: all` means all models of the family. For a factor below 1, chains are 1/factor times
    as long.
    """

    models: Names
    factors: Annotated[
        tuple[Positive, ...],
        Field(min_length=2),
        AfterValidator(distinct),
        AfterValidator(with_one),
    ]
    shuffles: Several
    chains: Count
    burn_in: Steps
    draws: Draws


class Original(Strict):
    """The protocol of November 2023.

    It runs SGLD at nβ = N/ln N for N batches, clips the losses of chains at a quantile, and
    computes λ̂ with the factor n/ln n for n reviews.

    Attributes:
        characters: reviews of more characters are used, even if they have few tokens. Their labels
            can then be padding.
        restart: whether each chain starts at w*. If not, it starts where the last one ended, as the
            chains of the study's quantised models did.
    """

    models: Names
    characters: Count
    lr: Positive
    localization: NonNegative
    bounding_box: Positive | None
    batch_size: Count
    shuffles: Several
    chains: Several
    burn_in: Steps
    draws: Draws
    clip_quantile: Share
    restart: bool


class TrainedModel(Strict):
    """A model that is trained here. If `steps` is given, it replaces `training.steps`."""

    source: Literal["trained"]
    architecture: Literal["gpt2", "llama"]
    layers: Count
    width: Count
    heads: Count
    lr: Positive
    steps: Count | None = None


class HubModel(Strict):
    source: Literal["hub"]
    repository: Repository
    revision: Revision


class LocalModel(Strict):
    """A model in a folder that `save_pretrained` wrote, here or elsewhere."""

    source: Literal["local"]
    path: Annotated[str, Field(min_length=1)]


Model = Annotated[TrainedModel | HubModel | LocalModel, Field(discriminator="source")]


class Family(Strict):
    """Models that are compared with one another, on one text and by one protocol.

    The last four of the attributes below change results by rounding alone.

    Attributes:
        weights: the format of the weights (see `replicate.models.loading`).
        compute_dtype: the format of matrix products. Sums, and weights in float32, stay float32.
        gradient_checkpointing: whether backward recomputes each block's activations.
        microbatch_size: examples in one backward pass; None for the whole minibatch.
        gpus_per_model: GPUs that one copy of a model is spread over.
        together: chains of a small model that are computed side by side.
    """

    corpus: str
    tokenizer: str
    rule: Literal["tokens", "characters"] = "tokens"
    length: Several
    weights: WeightFormat = "float32"
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    device: Literal["any", "cuda"] = "any"
    gradient_checkpointing: bool = False
    microbatch_size: Count | None = None
    gpus_per_model: Count = 1
    together: Count = 1
    models: Annotated[dict[Name, Model], Field(min_length=1)]
    sampling: Sampling
    search: Search
    transfer: Transfer
    original: Original
