"""A family of models in params.yaml: its text, how its chains are sampled, and its experiments."""

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
    """shuffles × chains × (burn_in + draws) steps of one sampler at inverse temperature nβ.

    localization γ, weight_decay μ and bounding_box belong to the posterior that is sampled, not to
    the sampler: they are set here, and a search finds the rest. `restriction`: what moves, in the
    words of `replicate.models.restrictions`. `implementation`: whose SGLD and SGNHT.
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
    """A search of each sampler's own knobs at the family's posterior: `trials` in batches of
    `batch`, the first half spread evenly over the ranges, the others proposed by tree-structured
    Parzen estimators.
    """

    trials: Count
    batch: Count
    sgld: LrRange
    rmsprop: LrRange
    sgnht: SGNHTRange | None = None


class Search(Strict):
    """How a family's sampler settings are found, on one of its models.

    `rule`: *stability* is the write-up's, the greatest mean over standard deviation of λ̂ across
    chains; *efficiency* takes most effective draws per gradient among the healthy settings of the
    family's posterior; *accuracy* takes of those the least expected relative error of λ̂.
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
    """The chosen step size times each of `factors`, on each of `models` (`all`: of the family's);
    below 1 the chains are longer in proportion.
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
    """The protocol of November 2023: SGLD at nβ = N/ln N for N batches, chains clipped at a
    quantile, λ̂ with the factor n/ln n for n reviews.

    `characters`: reviews of more than that are kept, however few their tokens, so that labels can
    be padding. `restart`: whether each chain starts at w*; those of the study's quantised models
    went on where the last one ended.
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
    """A model that is trained here. `steps`: at most, instead of `training.steps`."""

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
    """A folder that `save_pretrained` wrote, here or elsewhere."""

    source: Literal["local"]
    path: Annotated[str, Field(min_length=1)]


Model = Annotated[TrainedModel | HubModel | LocalModel, Field(discriminator="source")]


class Family(Strict):
    """Models that are compared with one another: one text, one protocol.

    `weights`: see `replicate.models.loading`. `compute_dtype`: of matrix products; weights in
    float32, and sums, stay in float32. The last four change results by rounding alone:
    `gradient_checkpointing` recomputes each block's activations in backward; `microbatch_size`:
    examples of a minibatch taken at a time, null for all; `gpus_per_model`: GPUs that one copy of
    a model is spread over; `together`: chains of a small model that are computed side by side.
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
