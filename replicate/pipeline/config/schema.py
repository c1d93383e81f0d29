"""Defines the parameters in params.yaml: each is typed and frozen, and some have a default."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from replicate.errors import UserError
from replicate.pipeline.config.family import Family, HubModel, Model, TrainedModel
from replicate.pipeline.config.fields import (
    Corpus,
    Count,
    Draws,
    FullFormat,
    Local,
    Name,
    Names,
    NonNegative,
    Positive,
    Several,
    Share,
    Steps,
    Strict,
    Tokenizer,
    WeightFormat,
    distinct,
)
from replicate.pipeline.config.paths import RESERVED, Paths
from replicate.study.plan import FamilyPlan, StudyPlan
from replicate.study.rules import Rules


class Machine(Strict):
    """How work is spread over processes. Results do not depend on it.

    Attributes:
        workers: processes that share a stage's work; auto is one for each GPU, or for each core.
        scheduler: the address of a running dask scheduler that takes the work instead.
        checkpoint_seconds: seconds between two checkpoints of a training.
    """

    workers: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    scheduler: Local | None = None
    checkpoint_seconds: NonNegative = 600.0


class Training(Strict):
    """How every control model is trained (see `replicate.models.training`)."""

    batch_size: Count
    warmup: Steps
    check: Count
    tolerance: Positive
    descent: Share
    steps: Several


class Baseline(Strict):
    batch_size: Count
    gradient_examples: Several


class Diagnostics(Strict):
    """The limits of the diagnostics of chains.

    Attributes:
        rhat: chains are healthy only if split R-hat is below this.
        drift: chains are healthy only if the p value of the drift test is not below this.
        local: the greatest rise of the loss above the baseline for chains that count as local. It
            is a share of the rise to the loss of guessing all tokens alike.
    """

    rhat: Annotated[float, Field(gt=1, allow_inf_nan=False)]
    drift: Share
    local: Share


class Quantisation(Strict):
    """The comparison of weight formats on `models`. Every format has the same batches and noise.

    Attributes:
        restricted: formats in which chains move only what nf4 leaves unquantised.
        full: formats in which chains move everything.
    """

    models: Names
    restricted: Annotated[tuple[WeightFormat, ...], Field(min_length=1), AfterValidator(distinct)]
    full: Annotated[tuple[FullFormat, ...], AfterValidator(distinct)]
    shuffles: Several
    chains: Count
    burn_in: Steps
    draws: Draws


class Study(Strict):
    """The families of a study, and its comparison of weight formats.

    Attributes:
        full: the name of the family in full precision.
        quantised: the name of the quantised family. If there is none, it is `full` again, because
            DVC would read null as a family called None.
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
    """Which targets of known λ are sampled, and how (see `replicate.validation.cases`).

    `targets` lists their names, or is *all*. `repeats` is the number of runs of the coverage study.
    """

    targets: Literal["all"] | Annotated[tuple[str, ...], Field(min_length=1)]
    shuffles: Several
    chains: Count
    repeats: Count


class Claims(Strict):
    """The rules of the verdicts, which are fixed before the data are seen.

    Attributes:
        level: the level of every test; every interval has the level 1 − `level`.
        bootstrap: the number of resamples.
        descent: by how much (nats) noise-free steps may lower the loss at a minimum.
        negligible: the relative change of λ̂ that counts as none.
        stable: the greatest coefficient of variation over shuffles that counts as stable.
    """

    level: Share
    bootstrap: Count
    descent: Positive
    negligible: Share
    stable: Share


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
    claims: Claims
    families: Annotated[dict[Name, Family], Field(min_length=1)]
    studies: Annotated[dict[Name, Study], Field(min_length=1)]

    @property
    def paths(self) -> Paths:
        """The files and folders that the stages read and write."""
        return Paths()

    @property
    def rules(self) -> Rules:
        """The rules by which claims are judged."""
        fixed = self.claims.model_dump() | self.diagnostics.model_dump()
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

    def plan(self, study: str) -> StudyPlan:
        """Returns the families, experiments and weight formats of a study."""
        given = self.studies[study]
        formats = given.quantisation
        pairs = [("restricted", formats.restricted), ("full", formats.full)] if formats else []
        return StudyPlan(
            name=study,
            full=self.family_plan(given.full),
            quantised=None if given.quantised == given.full else self.family_plan(given.quantised),
            formats=tuple(
                (model, moved, weights)
                for model in (formats.models if formats else ())
                for moved, each in pairs
                for weights in each
            ),
            note=self.studies[study].note,
        )

    def family_plan(self, name: str) -> FamilyPlan:
        """Returns the models and experiments of one family."""
        family = self.families[name]
        hub = family.models.values()
        return FamilyPlan(
            name=name,
            models=tuple(family.models),
            tokenizer=family.tokenizer,
            weights=family.weights,
            repositories=tuple(each.repository for each in hub if isinstance(each, HubModel)),
            search_model=family.search.model,
            transfer=tuple(
                (model, factor)
                for model in family.transfer.models
                for factor in family.transfer.factors
            ),
            original=family.original.models,
            clip_quantile=family.original.clip_quantile,
        )

    @model_validator(mode="after")
    def names_exist(self) -> Config:
        """Refuses a name that refers to nothing, and settings that contradict each other.

        Raises:
            UserError: the message names the key and the remedy.
        """
        for key, name, section in self._references():
            known = getattr(self, section)
            if name not in known:
                names = ", ".join(known)
                raise UserError(f"{key}: {name!r} is not one of {section}; write one of {names}")
        for key, model, family in self._members():
            if model not in self.families[family].models:
                mine = ", ".join(self.families[family].models)
                raise UserError(f"{key}: {model!r} is not of family {family}; write one of {mine}")
        for name, family in self.families.items():
            key, sampling = f"families.{name}.sampling", family.sampling
            if sampling.implementation == "devinterp" and family.weights in (
                "bfloat16",
                "dequantised",
            ):
                raise UserError(
                    f"{key}.implementation: devinterp rounds bfloat16 to nearest; write replicate"
                )
            if sampling.sampler == "sgnht" and sampling.localization:
                raise UserError(
                    f"{key}.localization: SGNHT has no localisation; write 0.0, or another sampler"
                )
        for name in self.studies:
            if name in RESERVED:
                raise UserError(f"studies.{name}: the name is taken; choose another")
        for name, family in self.families.items():
            for model, given in family.models.items():
                key = f"families.{name}.models.{model}"
                if self.family_of(model) != name:
                    raise UserError(
                        f"{key}: {self.family_of(model)} has a model of that name; choose another"
                    )
                if isinstance(given, TrainedModel) and given.width % (2 * given.heads):
                    raise UserError(
                        f"{key}.width: {given.width} is not a multiple of 2 × heads"
                        f" ({2 * given.heads}); change one"
                    )
        return self

    def _references(self) -> list[tuple[str, str, str]]:
        """Lists (key, name, section): the name must be in that section."""
        return [
            *((f"families.{n}.corpus", f.corpus, "corpora") for n, f in self.families.items()),
            *(
                (f"families.{n}.tokenizer", f.tokenizer, "tokenizers")
                for n, f in self.families.items()
            ),
            *((f"calibration.{n}", n, "studies") for n in self.calibration),
            *((f"studies.{n}.full", s.full, "families") for n, s in self.studies.items()),
            *((f"studies.{n}.quantised", s.quantised, "families") for n, s in self.studies.items()),
        ]

    def _members(self) -> list[tuple[str, str, str]]:
        """Lists (key, model, family): the model must be of that family."""
        found = []
        for name, family in self.families.items():
            named = {"search.model": (family.search.model,)}
            named |= {"transfer.models": family.transfer.models}
            named |= {"original.models": family.original.models}
            found += [
                (f"families.{name}.{key}", model, name)
                for key, models in named.items()
                for model in models
            ]
        for name, study in self.studies.items():
            if study.quantisation:
                key = f"studies.{name}.quantisation.models"
                found += [(key, model, study.quantised) for model in study.quantisation.models]
        return found
