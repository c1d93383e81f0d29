"""The only reader of params.yaml: strict, typed, frozen."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from replicate.errors import UserError

BIGGEST = 1 << 18  # bytes of a file of parameters
MOST = 100_000  # values in it
TAKEN = ("published", "reference", "schemas")  # folders beside those of the studies

Whole = Annotated[int, Field(le=10**9)]
Count = Annotated[Whole, Field(ge=1)]
Steps = Annotated[Whole, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
# becomes part of a path and of a shell's command, and for DVC of a key, where a dot would part it
Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]*$", max_length=64)]
Revision = Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
Repository = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")]
File = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*$")
]  # in a repository
Local = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$")]  # a path
T = TypeVar("T")
SamplerName = Literal["sgld", "sgnht", "rmsprop"]
WeightFormat = Literal["float32", "bfloat16", "nf4", "int8", "dequantised", "dequantised-float32"]


def distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    """Each becomes a folder's name."""
    if len({f"{value:g}" if isinstance(value, float) else value for value in values}) < len(values):
        raise ValueError("one stands twice")
    return values


def with_one(factors: tuple[float, ...]) -> tuple[float, ...]:
    if 1.0 not in factors:
        raise ValueError("1.0, which the others are compared with, is not among them")
    return factors


Names = Annotated[tuple[str, ...], AfterValidator(distinct)]


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


class Machine(Strict):
    """What results do not depend on. `processes`: that share the work of a stage; auto: one on each
    GPU, or on each core. `checkpoint_seconds`: how long a chain or a training goes on before its
    state is put on disk.
    """

    processes: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"]
    checkpoint_seconds: NonNegative


class Training(Strict):
    """How every control model is trained: see replicate/models/training.py."""

    batch_size: Count
    warmup: Steps
    check: Count
    tolerance: Positive
    descent: Share
    steps: Annotated[Whole, Field(ge=2)]


class Baseline(Strict):
    batch_size: Count
    gradient_examples: Annotated[Whole, Field(ge=2)]


class Diagnostics(Strict):
    """When a set of chains counts as healthy: split R-hat below `rhat`, and a drift test whose p is
    not below `drift`. `local`: the rise of a model's loss, as a share of that from w* to guessing
    all tokens alike, from which on its page says that its chains are not local.
    """

    rhat: Annotated[float, Field(gt=1, allow_inf_nan=False)]
    drift: Share
    local: Share


class Sampling(Strict):
    """groups × chains × (burn_in + draws) steps of one sampler at inverse temperature nβ.
    localization γ, weight_decay μ and bounding_box belong to the posterior that is sampled, not to
    the sampler: they are set here, and a search finds the rest. `restriction`: what moves, in the
    words of replicate/models/restrictions.py. `implementation`: whose SGLD and SGNHT, ours or
    devinterp's.
    """

    sampler: SamplerName
    restriction: Annotated[tuple[str, ...], Field(min_length=1)]
    implementation: Literal["replicate", "devinterp"]
    nbeta: Positive
    localization: NonNegative
    weight_decay: NonNegative
    bounding_box: Positive | None
    batch_size: Count
    groups: Count
    chains: Annotated[Whole, Field(ge=2)]
    burn_in: Steps
    draws: Annotated[Whole, Field(ge=4)]


class SGLDGrid(Strict):
    lr: Annotated[tuple[Positive, ...], Field(min_length=1)]
    weight_decay: Annotated[tuple[NonNegative, ...], Field(min_length=1)]
    localization: Annotated[tuple[NonNegative, ...], Field(min_length=1)]
    bounding_box: Annotated[tuple[Positive | None, ...], Field(min_length=1)]


class SGNHTGrid(Strict):
    lr: Annotated[tuple[Positive, ...], Field(min_length=1)]
    diffusion: Annotated[tuple[Positive, ...], Field(min_length=1)]
    noise_diffusion: Annotated[tuple[Positive | None, ...], Field(min_length=1)]
    bounding_box: Annotated[tuple[Positive | None, ...], Field(min_length=1)]


def rising(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] >= ends[1]:
        raise ValueError("write the smaller end first")
    return ends


Range = Annotated[
    tuple[Positive, Positive], AfterValidator(rising)
]  # of a search on the logarithmic scale


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
    sgnht: SGNHTRange | None


class Search(Strict):
    """`rule`: how the setting is chosen. `stability`: the write-up's, the greatest mean over
    standard deviation of λ̂ across chains. `efficiency`: most effective draws per gradient among
    the healthy settings of the family's posterior. `accuracy`: of those, the least expected
    relative error of λ̂, the bias of the step size and the Monte-Carlo error together.
    """

    model: str
    rule: Literal["accuracy", "efficiency", "stability"]
    chains: Annotated[Whole, Field(ge=2)]
    burn_in: Steps
    draws: Annotated[Whole, Field(ge=4)]
    sgld: SGLDGrid
    sgnht: SGNHTGrid | None
    tpe: TPE | None


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
    groups: Annotated[Whole, Field(ge=2)]
    chains: Count
    burn_in: Steps
    draws: Annotated[Whole, Field(ge=4)]


class Original(Strict):
    """The protocol of November 2023: SGLD at nβ = N/ln N for N batches, chains clipped at a
    quantile, λ̂ with the factor n/ln n for n reviews. `characters`: reviews of more than that are
    kept, however few their tokens, so that labels can be padding. `restart`: whether each chain
    starts at w*; those of the study's quantised models went on where the last one ended.
    """

    models: Names
    characters: Count
    lr: Positive
    localization: NonNegative
    bounding_box: Positive | None
    batch_size: Count
    groups: Annotated[Whole, Field(ge=2)]
    chains: Annotated[Whole, Field(ge=2)]
    burn_in: Steps
    draws: Annotated[Whole, Field(ge=4)]
    clip_quantile: Share
    restart: bool


class Family(Strict):
    """Models that are compared with one another: one text, one protocol. `weights`: see
    replicate/models/loading.py. `products`: the precision of matrix products; weights in float32,
    and what is summed up, stay in float32. How a model is made to fit changes results by rounding
    alone. `activations`: kept for backward, or each block's recomputed there. `microbatch`:
    examples of a minibatch taken at a time, null for all. `cards`: GPUs that one copy of a model is
    spread over.
    """

    corpus: str
    tokenizer: str
    rule: Literal["tokens", "characters"]
    length: Annotated[Whole, Field(ge=2)]
    weights: WeightFormat
    products: Literal["float32", "bfloat16"]
    device: Literal["any", "cuda"]
    activations: Literal["kept", "recomputed"]
    microbatch: Count | None
    cards: Count
    sampling: Sampling
    search: Search
    transfer: Transfer
    original: Original


class TrainedModel(Strict):
    family: str
    source: Literal["trained"]
    architecture: Literal["gpt2", "llama"]
    layers: Count
    width: Count
    heads: Count
    lr: Positive


class HubModel(Strict):
    family: str
    source: Literal["hub"]
    repository: Repository
    revision: Revision


Model = Annotated[TrainedModel | HubModel, Field(discriminator="source")]


class Quantisation(Strict):
    """What a weight format does to w* and λ̂ of `models`: by the chosen setting, with the same
    batches and noise in every format. restricted: formats in which chains move what nf4 leaves
    unquantised. full: formats in which they move everything.
    """

    models: Annotated[Names, Field(min_length=1)]
    restricted: Annotated[tuple[WeightFormat, ...], Field(min_length=1), AfterValidator(distinct)]
    full: Annotated[
        tuple[Literal["float32", "bfloat16", "dequantised", "dequantised-float32"], ...],
        AfterValidator(distinct),
    ]
    groups: Annotated[Whole, Field(ge=2)]
    chains: Count
    burn_in: Steps
    draws: Annotated[Whole, Field(ge=4)]


class Study(Strict):
    """`quantised`: `full` again where there is no quantised family. DVC would read null as a family
    called None. `quantisation`: null for no trial of weight formats.
    """

    full: str
    quantised: str
    quantisation: Quantisation | None

    @field_validator("quantised", mode="before")
    @classmethod
    def given(cls, value: Any) -> Any:
        if value is None:
            raise UserError(
                "studies: `quantised` is null; where a study has no quantised family, write the name of `full` again"
            )
        return value

    @property
    def families(self) -> tuple[str, ...]:
        """Each once, the full-precision one first."""
        return tuple(dict.fromkeys((self.full, self.quantised)))


class Calibration(Strict):
    """How the targets of known λ are sampled (replicate/validation/calibration.py)."""

    groups: Annotated[Whole, Field(ge=2)]
    chains: Count
    repeats: Count


class Claims(Strict):
    """The rules of the verdicts, fixed before the data are seen (replicate/study/claims.py).

    level: of every test, and 1 − level of every interval. bootstrap: resamples. descent: nats by
    which noise-free steps may lower the loss at a minimum. negligible: relative change of λ̂ that
    counts as none. stable: greatest coefficient of variation over shuffles that counts as stable.
    """

    level: Share
    bootstrap: Count
    descent: Positive
    negligible: Share
    stable: Share


class Params(Strict):
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    machine: Machine
    corpora: Annotated[dict[Name, Corpus], Field(min_length=1)]
    tokenizers: Annotated[dict[Name, Tokenizer], Field(min_length=1)]
    training: Training
    baseline: Baseline
    diagnostics: Diagnostics
    calibration: Calibration
    claims: Claims
    families: Annotated[dict[Name, Family], Field(min_length=1)]
    models: Annotated[dict[Name, Model], Field(min_length=1)]
    studies: Annotated[dict[Name, Study], Field(min_length=1)]

    @model_validator(mode="after")
    def names_exist(self) -> Params:
        references = [
            *((f"families.{n}.corpus", f.corpus, "corpora") for n, f in self.families.items()),
            *(
                (f"families.{n}.tokenizer", f.tokenizer, "tokenizers")
                for n, f in self.families.items()
            ),
            *(
                (f"families.{n}.search.model", f.search.model, "models")
                for n, f in self.families.items()
            ),
            *((f"models.{n}.family", m.family, "families") for n, m in self.models.items()),
            *((f"studies.{n}.full", s.full, "families") for n, s in self.studies.items()),
            *((f"studies.{n}.quantised", s.quantised, "families") for n, s in self.studies.items()),
        ]
        for key, name, section in references:
            if name not in getattr(self, section):
                raise UserError(
                    f"{key}: {name!r} is not one of {section}; write one of {', '.join(getattr(self, section))}"
                )
        for name, family in self.families.items():
            named = [("search.model", family.search.model)]
            named += [("transfer.models", model) for model in family.transfer.models]
            named += [("original.models", model) for model in family.original.models]
            for key, plan in (("transfer", family.transfer), ("original", family.original)):
                if not plan.models:
                    raise UserError(
                        f"families.{name}.{key}.models: none; name at least one, or write all"
                    )
            for key, model in named:
                if model not in self.models or self.models[model].family != name:
                    raise UserError(
                        f"families.{name}.{key}: {model!r} is of another family; name one of {name}'s"
                    )
            if family.sampling.implementation == "devinterp" and family.weights in (
                "bfloat16",
                "dequantised",
            ):
                raise UserError(
                    f"families.{name}.sampling.implementation: devinterp rounds bfloat16 to nearest; write replicate"
                )
            if family.sampling.sampler == "sgnht" and family.sampling.localization:
                raise UserError(
                    f"families.{name}.sampling.localization: SGNHT has no localisation; write 0.0, or another sampler"
                )
        for name, study in self.studies.items():
            if name in TAKEN:
                raise UserError(
                    f"studies.{name}: {name!r} names a folder beside those of the studies; choose another"
                )
            for model in study.quantisation.models if study.quantisation else ():
                if model not in self.models or self.models[model].family != study.quantised:
                    raise UserError(
                        f"studies.{name}.quantisation.models: {model!r} is not of {study.quantised}; name one of its models"
                    )
        for name, model in self.models.items():
            if isinstance(model, TrainedModel) and model.width % (2 * model.heads):
                raise UserError(
                    f"models.{name}.width: {model.width} is not a multiple of 2 × heads ({2 * model.heads}); change one"
                )
        return self

    def family_of(self, kind: str, name: str) -> str:
        """The family that a command on a family, a model, or a study works on: of a study, the
        quantised one.
        """
        return {
            "family": lambda: name,
            "model": lambda: self.models[name].family,
            "study": lambda: self.studies[name].quantised,
        }[kind]()

    def models_of(self, family: str) -> list[str]:
        return [name for name, model in self.models.items() if model.family == family]


class UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice (what `<<` merges in may be given again) or not
    text, and reads 1e-06 as DVC does and writes it.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                raise UserError(
                    f"line {line}: the key {key.value if isinstance(key.value, str) else ''!r} is not text; put it in quotes"
                )
            if key.value in seen:
                raise UserError(f"line {line}: the key {key.value!r} stands twice; remove one")
            seen.add(key.value)
        return node


UniqueKeyLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load(path: Path = Path("params.yaml")) -> Params:
    """The parameters in `path`.

    Raises:
        UserError: the file is missing or not YAML, a block stands in two places, or a key is
        unknown, missing, of the wrong type or names
            nothing.
    """
    try:
        if not path.exists():
            raise UserError("no such file; run this from the project's root")
        if not path.is_file() or path.stat().st_size > BIGGEST:
            raise UserError(f"no file of less than {BIGGEST >> 10} KiB; take it from git again")
        return parse(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {error}; correct it") from None
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    except RecursionError:
        raise UserError(
            f"{path}: blocks within blocks without end; take it from git again"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; make it a file that can be read") from None
    except (UserError, ValueError) as error:
        raise UserError(
            f"{path}: {error}{'' if isinstance(error, UserError) else '; correct it'}"
        ) from None


def parse(text: str) -> Params:
    loader = UniqueKeyLoader(text)
    node = loader.get_single_node()
    if node is None:
        raise UserError("empty; take it from git again")
    measure(node, {})
    return build(loader.construct_document(node))


def build(data: Any) -> Params:
    refuse_shared(data, "", {})
    return Params.model_validate_json(json.dumps(spell_out(data), default=str))


def measure(node: yaml.Node, sizes: dict[int, int]) -> int:
    """How many values a node has when its aliases are spelled out: a few lines can stand for more
    than a memory holds.

    Raises:
        UserError: too many, or without end.
    """
    if id(node) not in sizes:
        sizes[id(node)] = MOST  # until it is known: a node that is met again within itself
        inside = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = (
            [part for pair in inside for part in pair]
            if isinstance(node, yaml.MappingNode)
            else inside
        )
        sizes[id(node)] = 1 + sum(measure(part, sizes) for part in parts)
    if sizes[id(node)] >= MOST:
        raise UserError(
            f"line {node.start_mark.line + 1}: aliases stand for more than {MOST:,} values; write fewer"
        )
    return sizes[id(node)]


def refuse_shared(block: Any, prefix: str, places: dict[int, str]) -> None:
    """`dvc exp run -S` cannot change one of two keys that share a block by `<<` or an alias: it
    changes both, or neither.

    Raises:
        UserError: a block stands in two places.
    """
    for key, value in block.items() if isinstance(block, dict) else ():
        if isinstance(value, dict):
            place = f"{prefix}{key}"
            if id(value) in places:
                remedy = f"give it values of its own, or those of an anchor on the other as `{key}: {{<<: *anchor}}`"
                raise UserError(
                    f"{place}: is one and the same block as {places[id(value)]}; {remedy}"
                )
            places[id(value)] = place
            refuse_shared(value, f"{place}.", places)


def spell_out(data: Any) -> Any:
    """Puts for `models: all` of a family's plans the names of its models, in their order; what is
    malformed is left to the validation.
    """
    families, models = section(data, "families"), section(data, "models")
    for family in families:
        names = [name for name in models if section(models, name).get("family") == family]
        for plan in (section(section(families, family), name) for name in ("transfer", "original")):
            if plan.get("models") == "all":
                plan["models"] = names
    return data


def section(block: Any, key: str) -> dict[str, Any]:
    """The mapping under a key, an empty one where there is none."""
    found = block.get(key) if isinstance(block, dict) else None
    return found if isinstance(found, dict) else {}


def explain(error: ValidationError) -> str:
    """The first of a validation's errors as `key: what is wrong; remedy`."""
    errors = error.errors(include_url=False)
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    tags = {"generated", "hub", "local", "trained"}
    where = [part for i, part in enumerate(first["loc"]) if not (part in tags and i == 2)]
    key = ".".join(map(str, where)) or "the file"
    value = first["input"]
    match first["type"]:
        case "extra_forbidden":
            known = {field for model in Strict.__subclasses__() for field in model.model_fields}
            near = difflib.get_close_matches(str(where[-1]), known, 1)
            return f"{key}: unknown key; remove it" + (f" or write {near[0]}" if near else "")
        case "missing":
            return f"{key}: missing; add it"
        case "float_type" | "int_type" if isinstance(value, str):
            return f"{key}: {value!r} is text where a number belongs; write it without quotes"
        case "union_tag_not_found" | "union_tag_invalid":
            return f"{key}.source: write one of {first.get('ctx', {}).get('expected_tags', 'generated, hub, local, trained')}"
        case _:
            shown = "" if isinstance(value, dict | list) else f" ({value!r} given)"
            return f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}{shown}; correct it"
