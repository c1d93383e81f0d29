"""Defines the values in params.yaml and a family: its models, text, sampling and experiments."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from replicate.models.config import TextLoss

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
Revision = Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
Repository = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")]
File = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*$")]
Printable = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$")]
FullFormat = Literal["float32", "bfloat16", "dequantised", "dequantised-float32"]
WeightFormat = FullFormat | Literal["nf4", "int8"]
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


def numbered(seeds: object) -> object:
    """Returns the seeds 1 to n if a number n of seeds is given."""
    return tuple(range(1, seeds + 1)) if type(seeds) is int else seeds


Distinct = AfterValidator(distinct)
Names = Annotated[tuple[str, ...], Field(min_length=1), Distinct]
Range = Annotated[tuple[Positive, Positive], AfterValidator(rising)]  # on the logarithmic scale
Grid = Annotated[tuple[NonNegative, ...], Field(min_length=1)]
Rates = Annotated[tuple[Positive, ...], Field(min_length=1)]
Boxes = Annotated[tuple[Positive | None, ...], Field(min_length=1)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class OnHub(Strict):
    """A model or a tokenizer on the hub, at a commit."""

    source: Literal["hub"]
    repository: Repository
    revision: Revision


class HubFile(OnHub):
    """A file of texts in a data set on the hub; its column `column` holds them."""

    file: File
    column: Printable = "text"


class OnDisk(Strict):
    """Texts, a tokenizer, or a model that `save_pretrained` wrote, at any path on this machine."""

    source: Literal["local"]
    path: Printable


class LocalTexts(OnDisk):
    column: Printable = "text"


class GeneratedCorpus(Strict):
    source: Literal["generated"]
    reviews: Count


class TrainedTokenizer(Strict):
    source: Literal["trained"]
    vocabulary: Annotated[Whole, Field(gt=257)]


class TrainedModel(Strict):
    """A model that is trained here. If `steps` is given, it replaces `training.steps`."""

    source: Literal["trained"]
    architecture: Literal["gpt2", "llama"]
    layers: Count
    width: Count
    heads: Count
    lr: Positive
    steps: Count | None = None


class SingleEpochModel(Strict):
    """Models of one shape that are trained here, each on fresh text of the built-in grammar.

    Attributes:
        lr: the rate of Adam, which is constant and falls to zero over the last half of the steps.
        seeds: of the trainings, or how many there are: 3 stands for [1, 2, 3].
        checkpoints: steps after which the first training's weights are saved in a folder `step-K`.
    """

    source: Literal["single-epoch"]
    architecture: Literal["gpt2", "llama"]
    layers: Count
    width: Count
    heads: Count
    lr: Positive
    steps: Several
    seeds: Annotated[
        tuple[Count, ...], Field(min_length=1), Distinct, BeforeValidator(numbered)
    ] = (1,)
    checkpoints: Annotated[tuple[Count, ...], AfterValidator(ordered)] = ()


Corpus = Annotated[GeneratedCorpus | HubFile | LocalTexts, Field(discriminator="source")]
Tokenizer = Annotated[TrainedTokenizer | OnHub | OnDisk, Field(discriminator="source")]
Model = Annotated[TrainedModel | SingleEpochModel | OnHub | OnDisk, Field(discriminator="source")]


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


def each_training(models: dict[str, Model]) -> dict[str, Model]:
    """Returns the models with each training of a `SingleEpochModel` under a name of its own.

    Raises:
        ValueError: two models have the same name.
    """
    found: dict[str, Model] = {}
    for name, model in models.items():
        several = {name: model}
        if isinstance(model, SingleEpochModel):
            first, *others = model.seeds
            several = {f"{name}-{first}": model.model_copy(update={"seeds": (first,)})}
            for seed in others:
                alone = {"seeds": (seed,), "checkpoints": ()}
                several[f"{name}-{seed}"] = model.model_copy(update=alone)
        for twice in sorted({*found} & {*several}):
            raise ValueError(f"{twice} is named twice; choose another name for {name}")
        found |= several
    return found


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
    models: Annotated[dict[Name, Model], Field(min_length=1), AfterValidator(each_training)]
    sampling: Sampling
    search: Search
    transfer: Transfer
    original: Original | None = None

    @field_validator("transfer", "original", mode="before")
    @classmethod
    def spell_out(cls, given: Any, info: ValidationInfo) -> Any:
        """Replaces `models: all` by the names of the family's models, in their order."""
        if not isinstance(given, dict):
            return given
        spelt = {key: tuple(x) if isinstance(x, list) else x for key, x in given.items()}
        names = tuple(info.data.get("models", ()))
        return spelt | ({"models": names} if given.get("models") == "all" else {})
