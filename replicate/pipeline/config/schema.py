"""Defines the parameters in params.yaml: each is typed and frozen, and some have a default."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from replicate.errors import UserError
from replicate.pipeline.config.claims import Claims
from replicate.pipeline.config.curve import Curvature
from replicate.pipeline.config.family import Family, Quantisation
from replicate.pipeline.config.limits import Diagnostics
from replicate.pipeline.config.paths import RESERVED, Paths
from replicate.pipeline.config.sources import (
    ControlModel,
    Corpus,
    GeneratedCorpus,
    Model,
    OnHub,
    SampledCorpus,
    SingleEpochModel,
    Tokenizer,
    TrainedTokenizer,
    earlier,
)
from replicate.pipeline.config.values import (
    Count,
    Name,
    Names,
    NonNegative,
    Positive,
    Printable,
    Several,
    Share,
    Steps,
    Strict,
)
from replicate.study.plan import FamilyPlan, StudyPlan
from replicate.study.rules import Rules

CLIPPED = 0.95  # the quantile of the estimator *published* for a family without `original`


class Machine(Strict):
    """How work is spread over processes. Results do not depend on it.

    Attributes:
        workers: processes that share a stage's work; auto is one for each GPU, or for each core.
        scheduler: the address of a running dask scheduler that takes the work instead.
        checkpoint_seconds: seconds between two checkpoints of a training.
    """

    workers: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    scheduler: Printable | None = None
    checkpoint_seconds: NonNegative = 60.0


class Training(Strict):
    """How every control model is trained (see `replicate.models.training`)."""

    batch_size: Count
    warmup: Steps
    check: Count
    tolerance: Positive
    descent: Share
    steps: Several


class Baseline(Strict):
    """How the loss, its gradient and its Hessian at w* are computed.

    Attributes:
        batch_size: examples in one forward pass; a family's `microbatch_size` replaces it.
        gradient_examples: examples whose mean gradient is computed.
        curvature: how the Hessian of the models that are trained here is measured; null for none.
            Models from the hub are left out, because a product takes hours for the large ones.
    """

    batch_size: Count
    gradient_examples: Several
    curvature: Curvature | None = None


class Study(Strict):
    """The families of a study, and its comparison of weight formats.

    Attributes:
        full: the name of the family in full precision.
        quantised: the name of the quantised family. If there is none, write the name of `full`
            again; DVC would read null as a family called None.
        quantisation: None for no comparison of weight formats.
        note: a sentence that is shown with the study's results.
    """

    full: str
    quantised: str
    quantisation: Quantisation | None = None
    note: str = ""

    @property
    def families(self) -> tuple[str, ...]:
        """The names of the study's families, each once; `full` is the first."""
        return tuple(dict.fromkeys((self.full, self.quantised)))


class Calibration(Strict):
    """Which targets of known λ are sampled, and how (see `replicate.validation.cases`)."""

    targets: Literal["all"] | Names
    shuffles: Several
    chains: Count


class LongRuns(Strict):
    """The runs whose mean λ̂ is what the intervals of a language model's short runs should hold."""

    runs: Several
    draws: Count


class Coverage(Strict):
    """Short runs whose 95 % intervals are checked (see `replicate.validation.coverage`).

    Attributes:
        regression: the number of runs of a linear regression, whose λ̂ is known.
        models: the number of runs of a language model, for each setting by its name.
        reference: the long runs of each setting.
    """

    regression: Count
    models: dict[Literal["short", "stopped", "localised", "tokens"], Count]
    reference: LongRuns


class Config(Strict):
    """All parameters in params.yaml."""

    seed: Annotated[int, Field(ge=0, lt=2**63)]
    machine: Machine = Machine()
    corpora: Annotated[dict[Name, Corpus], Field(min_length=1)]
    tokenizers: Annotated[dict[Name, Tokenizer], Field(min_length=1)]
    training: Training
    baseline: Baseline
    diagnostics: Diagnostics
    calibration: dict[Name, Calibration]
    coverage: dict[Name, Coverage]
    claims: Claims
    families: Annotated[dict[Name, Family], Field(min_length=1)]
    studies: Annotated[dict[Name, Study], Field(min_length=1)]
    paths: ClassVar = Paths()  # the files and folders that the stages read and write

    @property
    def rules(self) -> Rules:
        """The rules by which claims are judged."""
        fixed = self.claims.model_dump() | self.diagnostics.healthy
        fixed["trainings"] = self.claims.trainings.rules
        return Rules(**fixed, seed=self.seed)

    @property
    def models(self) -> dict[str, Model]:
        """The models of all families, by name."""
        return {
            name: model for each in self.families.values() for name, model in each.models.items()
        }

    def family_of(self, model: str) -> str:
        """Returns the name of a model's family."""
        return next(name for name, family in self.families.items() if model in family.models)

    def sampled(self, family: str) -> SampledCorpus | None:
        """Returns a family's corpus if each model samples its own text, else None."""
        found = self.corpora[self.families[family].corpus]
        return found if isinstance(found, SampledCorpus) else None

    def of_neighbours(self, family: str) -> Config:
        """Returns the parameters with only those models of a family that have neighbours."""
        own = self.families[family]
        if own.sampling.neighbours == "all":
            return self
        first = next(name for name in own.models if name not in earlier(own.models))
        fewer = own.model_copy(update={"models": {first: own.models[first]}})
        return self.model_copy(update={"families": self.families | {family: fewer}})

    def plan(self, study: str) -> StudyPlan:
        """Returns the families, experiments and weight formats of a study."""
        given, formats = self.studies[study], self.studies[study].quantisation
        full, quantised = (self.family_plan(name) for name in (given.full, given.quantised))
        return StudyPlan(
            name=study,
            full=full,
            quantised=None if quantised == full else quantised,
            formats=tuple(
                (model, moved, weights)
                for model in (formats.models if formats else ())
                for moved in ("restricted", "full")
                for weights in getattr(formats, moved)
            ),
            note=given.note,
        )

    def family_plan(self, name: str) -> FamilyPlan:
        """Returns the models and experiments of one family."""
        family = self.families[name]
        transfer, curve, models = family.transfer, family.curve, family.models.values()
        return FamilyPlan(
            name=name,
            models=tuple(family.models),
            tokenizer=family.tokenizer,
            weights=family.weights,
            loss=family.loss,
            repositories=tuple(each.repository for each in models if isinstance(each, OnHub)),
            search_model=family.search.model,
            transfer=tuple((model, x) for model in transfer.models for x in transfer.factors),
            original=family.original.models if family.original else (),
            clip_quantile=family.original.clip_quantile if family.original else CLIPPED,
            curve=tuple(product(curve.models, curve.nbeta, curve.localization)) if curve else (),
            measured=family.settings is not None,
            neighbours=tuple(self.of_neighbours(name).families[name].models),
            earlier=earlier(family.models),
        )

    @model_validator(mode="after")
    def names_exist(self) -> Config:
        """Refuses a name that refers to nothing, and settings that contradict each other.

        Raises:
            UserError: the message names the key and the remedy.
        """
        for key, name, names, what in self._references():
            if name not in names:
                raise UserError(f"{key}: {name!r} is not {what}; write one of {', '.join(names)}")
        if contradiction := next(self._contradictions(), ""):
            raise UserError(contradiction)
        return self

    def _references(self) -> Iterator[tuple[str, str, Iterable[str], str]]:
        """Yields each (key, name, names, what): the name must be one of these names."""
        for name, family in self.families.items():
            key, mine = f"families.{name}", (family.models, f"of family {name}")
            yield f"{key}.corpus", family.corpus, self.corpora, "one of corpora"
            yield f"{key}.tokenizer", family.tokenizer, self.tokenizers, "one of tokenizers"
            yield f"{key}.search.model", family.search.model, *mine
            for model in family.transfer.models:
                yield f"{key}.transfer.models", model, *mine
            for part in ("original", "curve"):
                for model in getattr(getattr(family, part), "models", ()):
                    yield f"{key}.{part}.models", model, *mine
        for key in ("calibration", "coverage"):
            for name in getattr(self, key):
                yield f"{key}.{name}", name, self.studies, "one of studies"
        for name, study in self.studies.items():
            key, family = f"studies.{name}", study.quantised
            yield f"{key}.full", study.full, self.families, "one of families"
            yield f"{key}.quantised", family, self.families, "one of families"
            for model in study.quantisation.models if study.quantisation else ():
                models = self.families[family].models
                yield f"{key}.quantisation.models", model, models, f"of family {family}"

    def _contradictions(self) -> Iterator[str]:
        """Yields a line for each setting that another one forbids."""
        for name in sorted({*self.studies} & {*RESERVED}):
            yield f"studies.{name}: the name is taken; choose another"
        for name, family in self.families.items():
            key, given = f"families.{name}", family.sampling
            rounded = family.weights in ("bfloat16", "dequantised")
            if given.implementation == "devinterp" and rounded:
                said = "devinterp rounds bfloat16 to nearest; write replicate"
                yield f"{key}.sampling.implementation: {said}"
            if given.sampler == "sgnht" and given.localization:
                said = "SGNHT has no localisation; write 0.0, or another sampler"
                yield f"{key}.sampling.localization: {said}"
            if family.rule == "characters" and family.original is None:
                yield f"{key}.rule: characters needs original.characters; write tokens"
            elsewhere = "write one that is local or of the hub"
            without = f"and the models of corpus {family.corpus} have no text before they sample it"
            if self.sampled(name) and family.original is not None:
                yield f"{key}.original: needs reviews, {without}; write null"
            tokenizer = self.tokenizers[family.tokenizer]
            if self.sampled(name) and isinstance(tokenizer, TrainedTokenizer):
                yield f"{key}.tokenizer: is trained on text, {without}; {elsewhere}"
            for model, shape in family.models.items():
                at, other = f"{key}.models.{model}", self.family_of(model)
                if other != name:
                    yield f"{at}: {other} has a model of that name; choose another"
                if self.sampled(name) and isinstance(shape, ControlModel):
                    yield f"{at}: is trained on text, {without}; {elsewhere}"
                if isinstance(shape, ControlModel) and shape.width % (2 * shape.heads):
                    said = f"is not a multiple of 2 × heads ({2 * shape.heads}); change one"
                    yield f"{at}.width: {shape.width} {said}"
                if isinstance(shape, SingleEpochModel):
                    last, corpus = shape.steps or self.training.steps, self.corpora[family.corpus]
                    if not isinstance(corpus, GeneratedCorpus):
                        said = f"is not generated, and {model} needs text of the grammar"
                        yield f"{key}.corpus: {family.corpus} {said}; write a generated corpus"
                    for step in shape.checkpoints:
                        if step > last:
                            yield f"{at}.checkpoints: {step} is after step {last}; leave it out"
