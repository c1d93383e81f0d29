"""The only reader of params.yaml: strict, typed, frozen."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from replicate.errors import UserError

Count = Annotated[int, Field(ge=1)]
Steps = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9.-]*$")]  # becomes part of a path
Revision = Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
Repository = Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
SamplerName = Literal["sgld", "sgnht"]
WeightFormat = Literal["float32", "bfloat16", "nf4", "int8"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class GeneratedCorpus(Strict):
    source: Literal["generated"]
    reviews: Count


class HubCorpus(Strict):
    source: Literal["hub"]
    repository: Repository
    revision: Revision
    file: str


class LocalCorpus(Strict):
    source: Literal["local"]
    path: str


class TrainedTokenizer(Strict):
    source: Literal["trained"]
    vocabulary: Annotated[int, Field(gt=257)]


class HubTokenizer(Strict):
    source: Literal["hub"]
    repository: Repository
    revision: Revision


class LocalTokenizer(Strict):
    source: Literal["local"]
    path: str


Corpus = Annotated[GeneratedCorpus | HubCorpus | LocalCorpus, Field(discriminator="source")]
Tokenizer = Annotated[TrainedTokenizer | HubTokenizer | LocalTokenizer, Field(discriminator="source")]


class Training(Strict):
    """How every control model is trained: see replicate/pretrain.py."""

    batch_size: Count
    warmup: Steps
    check: Count
    tolerance: Positive
    descent: Share
    steps: Annotated[int, Field(ge=2)]


class Baseline(Strict):
    batch_size: Count
    gradient_examples: Annotated[int, Field(ge=2)]


class Sampling(Strict):
    """groups × chains × (burn_in + draws) steps of one sampler at inverse temperature nβ."""

    sampler: SamplerName
    nbeta: Positive
    batch_size: Count
    groups: Count
    chains: Annotated[int, Field(ge=2)]
    burn_in: Steps
    draws: Annotated[int, Field(ge=4)]


class SGLDGrid(Strict):
    lr: Annotated[tuple[Positive, ...], Field(min_length=1)]
    weight_decay: Annotated[tuple[NonNegative, ...], Field(min_length=1)]
    localization: Annotated[tuple[NonNegative, ...], Field(min_length=1)]
    bounding_box: Annotated[tuple[Positive | None, ...], Field(min_length=1)]


class SGNHTGrid(Strict):
    lr: Annotated[tuple[Positive, ...], Field(min_length=1)]
    diffusion: Annotated[tuple[Positive, ...], Field(min_length=1)]
    bounding_box: Annotated[tuple[Positive | None, ...], Field(min_length=1)]


class Search(Strict):
    model: str
    chains: Annotated[int, Field(ge=2)]
    burn_in: Steps
    draws: Annotated[int, Field(ge=4)]
    sgld: SGLDGrid
    sgnht: SGNHTGrid | None


class Family(Strict):
    """Models that are compared with one another: one text, one protocol."""

    corpus: str
    tokenizer: str
    rule: Literal["tokens", "characters"]
    length: Annotated[int, Field(ge=2)]
    weights: WeightFormat
    device: Literal["any", "cuda"]
    sampling: Sampling
    search: Search


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


class Study(Strict):
    full: str
    quantised: str


class Params(Strict):
    seed: Annotated[int, Field(ge=0)]
    corpora: dict[Name, Corpus]
    tokenizers: dict[Name, Tokenizer]
    training: Training
    baseline: Baseline
    families: dict[Name, Family]
    models: dict[Name, Model]
    studies: dict[Name, Study]

    @model_validator(mode="after")
    def names_exist(self) -> Params:
        references = [
            *((f"families.{n}.corpus", f.corpus, "corpora") for n, f in self.families.items()),
            *((f"families.{n}.tokenizer", f.tokenizer, "tokenizers") for n, f in self.families.items()),
            *((f"families.{n}.search.model", f.search.model, "models") for n, f in self.families.items()),
            *((f"models.{n}.family", m.family, "families") for n, m in self.models.items()),
            *((f"studies.{n}.full", s.full, "families") for n, s in self.studies.items()),
            *((f"studies.{n}.quantised", s.quantised, "families") for n, s in self.studies.items()),
        ]
        for key, name, section in references:
            if name not in getattr(self, section):
                raise UserError(f"{key}: {name!r} is not one of {section}; write one of {', '.join(getattr(self, section))}")
        for name, family in self.families.items():
            if self.models[family.search.model].family != name:
                raise UserError(f"families.{name}.search.model: {family.search.model!r} is of another family; name one of {name}'s")
        for name, model in self.models.items():
            if isinstance(model, TrainedModel) and model.width % (2 * model.heads):
                raise UserError(f"models.{name}.width: {model.width} is not a multiple of 2 × heads ({2 * model.heads}); change one")
        return self

    def models_of(self, family: str) -> list[str]:
        return [name for name, model in self.models.items() if model.family == family]


class UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # pyright: ignore[reportUnknownMemberType]
        for key in keys:
            if keys.count(key) > 1:
                raise UserError(f"line {node.start_mark.line + 1}: the key {key!r} stands twice; remove one")
        return super().construct_mapping(node, deep)


def load(path: Path = Path("params.yaml")) -> Params:
    """The parameters in `path`.

    Raises:
        UserError: the file is missing or not YAML, or a key is unknown, missing, of the wrong type or names nothing.
    """
    try:
        data = UniqueKeyLoader(path.read_text(encoding="utf-8")).get_single_data()
        return Params.model_validate_json(json.dumps(data))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run this from the project's root") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except (TypeError, UnicodeDecodeError, OSError, ValueError) as error:
        if isinstance(error, ValidationError):
            raise UserError(f"{path}: {explain(error)}") from None
        raise UserError(f"{path}: {error}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


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
            return f"{key}: {value!r} is text where a number belongs; write it without quotes, and 1.0e-6 rather than 1e-6"
        case "union_tag_not_found" | "union_tag_invalid":
            return f"{key}.source: write one of {first.get('ctx', {}).get('expected_tags', 'generated, hub, local, trained')}"
        case _:
            shown = "" if isinstance(value, dict | list) else f" ({value!r} given)"
            return f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}{shown}; correct it"
