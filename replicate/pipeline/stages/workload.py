"""What the stages of params.yaml do, in steps and examples: the arithmetic of a plan."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PretrainedConfig

from replicate.data.json_io import read_json
from replicate.errors import UserError
from replicate.models import loading as models
from replicate.pipeline.config import Family, HubCorpus, HubModel, Params, TrainedTokenizer
from replicate.pipeline.planning import configurations
from replicate.pipeline.planning.footprint import Chain
from replicate.pipeline.stages.quantisation import MOVED

REVIEWS = 25_000  # in a corpus that has not been read yet
STATES = {"sgld", "rmsprop", "sgnht"}


@dataclass(frozen=True)
class Task:
    """One model in one stage: `steps` of chains shared by the processes, `examples` passed forward
    by one, `training` steps by one; with none of these it is fetched.
    """

    stage: str
    model: str
    chain: Chain
    steps: int = 0
    examples: int = 0
    training: int = 0

    @property
    def fetches(self) -> bool:
        return not (self.steps or self.examples or self.training)


def chain(family: Family, **other: object) -> Chain:
    sampling = family.sampling
    named = Chain(
        weights=family.weights,
        products=family.products,
        restriction=sampling.restriction,
        sampler=sampling.sampler,
        length=family.length,
        batch_size=sampling.batch_size,
        microbatch=family.microbatch,
        activations=family.activations,
        implementation=sampling.implementation,
    )
    return replace(named, **other)  # pyright: ignore[reportArgumentType]


def configuration(params: Params, name: str) -> PretrainedConfig | None:
    """None where neither the cache nor this project knows the model, or its vocabulary."""
    model, family = params.models[name], params.families[params.models[name].family]
    if isinstance(model, HubModel):
        return configurations.of_hub(model.repository, model.revision)
    tokenizer = params.tokenizers[family.tokenizer]
    vocabulary = (
        tokenizer.vocabulary
        if isinstance(tokenizer, TrainedTokenizer)
        else counted(model.family, "vocabulary")
    )
    if vocabulary is None:
        return None
    shape = {"layers": model.layers, "width": model.width, "heads": model.heads}
    return models.configuration(
        model.architecture, **shape, vocabulary=vocabulary, length=family.length
    )


def counted(family: str, what: str) -> int | None:
    """A number of a family's windows, None before they are made.

    Raises:
        UserError: their statistics are damaged.
    """
    found = Path("data", family, "windows", "statistics.json")
    if not found.is_file():
        return None
    try:
        return int(read_json(found)[what])
    except (ArithmeticError, LookupError, TypeError, ValueError):
        raise UserError(
            f"{found}: not what stage extract writes; delete {found.parent} and run dvc repro again"
        ) from None


def examples(params: Params, family: str) -> int:
    """Windows of a family; before they are made, as many as the corpus may have."""
    if (kept := counted(family, "kept")) is not None:
        return kept
    corpus = params.corpora[params.families[family].corpus]
    return REVIEWS if isinstance(corpus, HubCorpus) else getattr(corpus, "reviews", REVIEWS)


def tasks(params: Params) -> Iterator[Task]:
    """Of all stages that load a model."""
    for name, model in params.models.items():
        family = params.families[model.family]
        whole = chain(
            family, weights="float32", restriction=("all",), batch_size=params.training.batch_size
        )
        if isinstance(model, HubModel):
            yield Task(f"pretrain@{name}", name, chain(family))
        else:
            yield Task(f"pretrain@{name}", name, whole, training=params.training.steps)
        yield Task(f"baseline@{name}", name, chain(family), examples=examined(params, model.family))
        yield Task(f"estimate@{name}", name, chain(family), steps=steps(family.sampling))
    for key, family in params.families.items():
        count = trials(family) * family.search.chains * length(family.search)
        yield Task(
            f"search@{key}",
            family.search.model,
            chain(family, sampler=largest(family)),
            steps=count,
        )
        for name in family.transfer.models:
            stretched = sum(max(1.0, 1 / factor) for factor in family.transfer.factors)
            yield Task(
                f"transfer@{key}",
                name,
                chain(family),
                steps=round(stretched * steps(family.transfer)),
            )
        for name in family.original.models:
            plan, size = family.original, family.original.batch_size
            met = min(examples(params, key), plan.groups * plan.chains * length(plan) * size)
            yield Task(
                f"original@{key}",
                name,
                chain(family, sampler="sgld", batch_size=size),
                steps=steps(plan),
                examples=met,
            )
    for key, study in params.studies.items():
        if (plan := study.quantisation) is None:
            continue
        family = params.families[study.quantised]
        for name in plan.models:
            for moved, formats in (("restricted", plan.restricted), ("full", plan.full)):
                for weights in formats:
                    how = chain(family, weights=weights, restriction=MOVED[moved])
                    count = examined(params, study.quantised)
                    yield Task(f"quantisation@{key}", name, how, steps=steps(plan), examples=count)


def length(plan: object) -> int:
    return getattr(plan, "burn_in") + getattr(plan, "draws")  # noqa: B009


def steps(plan: object) -> int:
    return getattr(plan, "groups") * getattr(plan, "chains") * length(plan)  # noqa: B009


def largest(family: Family) -> str:
    """Of the samplers that a search tries, the one that takes the most memory."""
    search = family.search
    return "rmsprop" if search.tpe else "sgnht" if search.sgnht else "sgld"


def trials(family: Family) -> int:
    """Settings of a search."""
    search = family.search
    grids = [search.sgld.model_dump(), *([search.sgnht.model_dump()] if search.sgnht else [])]
    ranges = [key for key in STATES if search.tpe and search.tpe.model_dump()[key]]
    return sum(math.prod(map(len, grid.values())) for grid in grids) + (
        search.tpe.trials * len(ranges) if search.tpe else 0
    )


def examined(params: Params, family: str) -> int:
    """Forward passes of a look at w*: all examples, five steps along the gradient on half of those
    it is from, and these themselves, whose backward pass counts as two.
    """
    return examples(params, family) + round(5.5 * params.baseline.gradient_examples)
