"""Defines where texts, tokenizers and models come from: the hub, a folder, or this pipeline."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from replicate.pipeline.config.values import (
    REVISION,
    Count,
    Distinct,
    File,
    Positive,
    Printable,
    Repository,
    Revision,
    Several,
    Strict,
    Whole,
    ordered,
)


def numbered(seeds: object) -> object:
    """Returns a list of seeds as a tuple, and 1 to n if a number n of seeds is given."""
    if type(seeds) is int:
        return tuple(range(1, seeds + 1))
    return tuple(seeds) if isinstance(seeds, list) else seeds


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


class SampledCorpus(Strict):
    """Windows that each model of a family samples from itself (`replicate.models.generation`)."""

    source: Literal["sampled"]
    windows: Several


class TrainedTokenizer(Strict):
    source: Literal["trained"]
    vocabulary: Annotated[Whole, Field(gt=257)]


class ControlModel(Strict):
    """A model that is trained here, for `steps` steps or else `training.steps`.

    `lr` is the rate of Adam until it falls.
    """

    architecture: Literal["gpt2", "llama"]
    layers: Count
    width: Count
    heads: Count
    lr: Positive
    steps: Count | None = None


class TrainedModel(ControlModel):
    """A model that is trained on its family's windows, until its loss is flat."""

    source: Literal["trained"]


class SingleEpochModel(ControlModel):
    """Models of one shape that are trained once each, on text of the built-in grammar.

    Every step has new text, so there are no epochs. The rate falls over the share
    `training.descent` of all steps. The training with seed 2 is called NAME-2.

    Attributes:
        seeds: of the trainings, or how many there are: 3 stands for [1, 2, 3].
        checkpoints: steps after which the first training's weights are saved in a folder `step-K`.
    """

    source: Literal["single-epoch"]
    seeds: Annotated[
        tuple[Count, ...], Field(min_length=1), Distinct, BeforeValidator(numbered)
    ] = (1,)
    checkpoints: Annotated[tuple[Count, ...], AfterValidator(ordered)] = ()


def plain(steps: object) -> object:
    """Reads the steps of a block, and refuses (`ValueError`) one that is not written as 3000; as
    3e3 it might stand twice.
    """
    if not isinstance(steps, dict):
        return steps
    for step in steps:
        if not re.fullmatch(r"[1-9]\d*", str(step)):
            raise ValueError(f"{step}: write a step as a whole number above 0, such as 3000")
    return {int(step): place for step, place in steps.items()}


class Checkpoints(Strict):
    """One model at several steps of its training. The model at step 512 is called NAME-step512.

    Attributes:
        repository: the model's on the hub; None if the checkpoints are in folders.
        at: step → commit of the repository, or folder.
    """

    source: Literal["checkpoints"]
    repository: Repository | None = None
    at: Annotated[dict[Count, Printable], Field(min_length=1), BeforeValidator(plain)]

    def models(self, name: str) -> dict[str, Model]:
        """Returns the models by name.

        Raises:
            ValueError: a revision is no commit.
        """
        found: dict[str, Model] = {}
        for step, place in sorted(self.at.items()):
            known = {"of": name, "step": step}
            if self.repository is None:
                each = DiskCheckpoint(source="local", path=place, **known)
            else:
                if not re.fullmatch(REVISION, place):
                    said = f"{place!r} is not the 40 digits of a commit, in lower case"
                    raise ValueError(f"{name}.at.{step}: {said}")
                given = {"repository": self.repository, "revision": place}
                each = HubCheckpoint(source="hub", **given, **known)
            found[f"{name}-step{step}"] = each
        return found


class HubCheckpoint(OnHub):
    """The model `of` at a step of its training, on the hub."""

    of: Printable
    step: Count


class DiskCheckpoint(OnDisk):
    """The model `of` at a step of its training, in a folder."""

    of: Printable
    step: Count


Corpus = Annotated[
    GeneratedCorpus | HubFile | LocalTexts | SampledCorpus, Field(discriminator="source")
]
Tokenizer = Annotated[TrainedTokenizer | OnHub | OnDisk, Field(discriminator="source")]
Model = Annotated[
    TrainedModel | SingleEpochModel | OnHub | OnDisk | Checkpoints, Field(discriminator="source")
]


def each_training(models: dict[str, Model]) -> dict[str, Model]:
    """Returns the models with each training of a `SingleEpochModel`, and each of `Checkpoints`,
    under a name of its own.

    Raises:
        ValueError: two models have the same name.
    """
    found: dict[str, Model] = {}
    for name, model in models.items():
        several = model.models(name) if isinstance(model, Checkpoints) else {name: model}
        if isinstance(model, SingleEpochModel):
            first, *others = model.seeds
            several = {f"{name}-{first}": model.model_copy(update={"seeds": (first,)})}
            for seed in others:
                alone = {"seeds": (seed,), "checkpoints": ()}
                several[f"{name}-{seed}"] = model.model_copy(update=alone)
        for twice in sorted({*found} & {*several}):
            raise ValueError(f"{twice} is named twice")
        found |= several
    return found


def earlier(models: dict[str, Model]) -> tuple[str, ...]:
    """Returns the names of checkpoints that a later one of the same training follows."""
    steps = {n: m for n, m in models.items() if isinstance(m, HubCheckpoint | DiskCheckpoint)}
    last = {m.of: m.step for m in sorted(steps.values(), key=lambda m: m.step)}
    return tuple(name for name, m in steps.items() if m.step < last[m.of])
