"""Stage `pretrain`: trains the control models of a family, and fetches its other models."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replicate.data import json_io, tensors, windows
from replicate.models.config import EVALUATED, Schedule
from replicate.pipeline import cache, kept
from replicate.pipeline.config import Config
from replicate.pipeline.config.sources import ControlModel, OnDisk, OnHub, SingleEpochModel
from replicate.pipeline.parallel import run_units
from replicate.pipeline.work import plans
from replicate.pipeline.work.units import CachedUnit
from replicate.progress import Advance
from replicate.seeds import derive

if TYPE_CHECKING:
    from replicate.models.training import Outcome


@dataclass(frozen=True)
class TrainingUnit(CachedUnit):
    """A unit that trains a control model and writes a folder that contains it.

    Attributes:
        shape: the arguments of `replicate.models.loading.build`.
        windows: the file of the family's windows.
        windows_hash: the SHA-256 of that file.
        every: seconds between two saved states, from which a training that was stopped resumes.
        training_seed: of a training on fresh text; None for a training on the windows.
        checkpoints: steps after which the weights are saved.
    """

    model: str
    seed: int
    shape: Mapping[str, Any]
    schedule: Schedule
    windows: Path
    windows_hash: str
    device: str
    every: float
    training_seed: int | None = None
    checkpoints: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return f"training of {self.model}"

    @property
    def steps(self) -> int:
        """The largest number of training steps times the model's width, to which time is about
        proportional.
        """
        return self.schedule.steps * self.shape["width"]

    def settings(self) -> dict[str, Any]:
        found = asdict(self) | {"windows": self.windows_hash}
        keys = ("model", "seed", "shape", "schedule", "windows", "training_seed", "checkpoints")
        return {key: found[key] for key in keys}

    @property
    def identity(self) -> tuple[str | int, ...]:
        """The names from which the seeds of the initial weights and of the text are derived.

        Trainings on fresh text that differ in their number of steps alone have the same seeds.
        """
        if self.training_seed is None:
            return (self.model,)
        shape = (self.shape[key] for key in ("architecture", "layers", "width", "heads"))
        return *shape, self.training_seed

    def done(self) -> bool:
        return (self.file / "training.json").is_file()

    def run(self, advance: Advance) -> None:
        import torch

        from replicate.models import loading, training

        device, text = loading.device(self.device, self.model), windows.load(self.windows)
        torch.manual_seed(derive(self.seed, "initialise", *self.identity))
        model = loading.build(**self.shape)
        model.to(device)  # pyright: ignore[reportArgumentType]
        tokens_NxL = torch.from_numpy(text.tokens_NxL).long().to(device)
        seed, B = derive(self.seed, "train", *self.identity), self.schedule.batch_size
        if self.training_seed is None:
            batches = training.epochs(tokens_NxL, B, torch.Generator().manual_seed(seed))
        else:
            tokenizer = windows.read_tokenizer(self.windows.parent)
            batches = training.fresh(tokenizer, B, tokens_NxL.shape[1], seed, device)
        state = cache.Checkpoint(self.file.with_suffix(".checkpoint"), self.every)
        partial = self.file.with_suffix(".partial")

        def save(step: int) -> None:
            if step in self.checkpoints:
                model.save_pretrained(partial / f"step-{step}", safe_serialization=True)

        outcome = training.train(
            model,
            tokens_NxL,
            self.schedule,
            batches,
            lambda steps=1, note="": advance(steps * self.shape["width"], note),
            state,
            save,
        )
        model.save_pretrained(partial, safe_serialization=True)
        found = report(outcome, self.schedule, text)
        if self.training_seed is not None:
            parameters = model.num_parameters()
            found |= {"epochs": 0.0, "parameters": parameters, "seed": self.training_seed}
        json_io.write_json(partial / "training.json", found)
        shutil.rmtree(self.file, ignore_errors=True)
        partial.rename(self.file)
        state.drop()


def report(outcome: Outcome, schedule: Schedule, text: windows.Windows) -> dict[str, Any]:
    """Returns the fields of a `Training` record that the training itself determines."""
    floor_NxL = text.floor_NxL
    if floor_NxL is not None:
        floor_NxL = floor_NxL[:EVALUATED, 1:].astype(float)
    return asdict(outcome) | {
        "epochs": outcome.steps * schedule.batch_size / len(text.tokens_NxL),
        "floor": None if floor_NxL is None else floor_NxL.mean(),
        "label_floor": None if floor_NxL is None else floor_NxL[:, -1].mean(),
    }


def run(config: Config, family: str, only: str | None = None) -> None:
    """Writes a folder for each model: its weights, or a manifest of files that are elsewhere.

    A control model whose weights are kept in git is not trained again.

    Raises:
        UserError: a model cannot be fetched or trained here.
    """
    folder, models = config.paths.models(family), config.families[family].models
    units, trained = [], []
    for name in plans.only(models, only):
        model = models[name]
        if isinstance(model, ControlModel):
            trained.append(unit := training_unit(config, name, model))
            if not kept.restore(config, family, unit):
                units.append(unit)
        elif isinstance(model, OnHub | OnDisk):
            fetch(model, folder / name, config.families[family].device)
    longest_first = sorted(units, key=lambda unit: -unit.steps)
    run_units(longest_first, config.machine, f"pretrain {family}")
    for unit in trained:
        out = folder / unit.model
        if unit in units:
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(unit.file, out)
        found = json_io.read_json(out / "training.json")
        flat = "" if unit.training_seed else ", flat" if found["flat"] else ", not flat"
        floor = "unknown" if found["floor"] is None else f"{found['floor']:.4f}"
        print(
            f"{unit.model}: loss {found['loss']:.4f} (label {found['label_loss']:.4f})"
            f" after {found['steps']} steps{flat}; floor {floor}"
        )


def fetch(model: OnHub | OnDisk, folder: Path, device: str) -> None:
    """Writes the manifest of a model that is not trained here; a model of the hub is fetched.

    Raises:
        UserError: the model cannot be found or fetched, or it needs a GPU that is not here.
    """
    from replicate.models import loading

    loading.device(device, folder.name)
    if isinstance(model, OnDisk):
        loading.save_manifest(folder, model.path)
        print(f"{folder.name}: its files are in {model.path}")
    else:
        loading.save_manifest(folder, model.repository, model.revision)
        print(f"{folder.name}: {model.repository}@{model.revision[:8]} is in the hub's cache")


def training_unit(config: Config, name: str, model: ControlModel) -> TrainingUnit:
    """Returns the unit that trains a model of params.yaml."""
    family = config.family_of(name)
    file = config.paths.windows(family) / plans.WINDOWS
    schedule = config.training.model_dump() | ({"steps": model.steps} if model.steps else {})
    fresh = {}
    if isinstance(model, SingleEpochModel):
        schedule["check"] = schedule["steps"]  # the rate falls at its time, whatever the loss
        fresh = {"training_seed": model.seeds[0], "checkpoints": model.checkpoints}
    text, tokenizer = plans.text(file), windows.read_tokenizer(file.parent)
    highest = max(tokenizer.get_vocab().values())  # there may be gaps between the numbers
    sizes = {"vocabulary": highest + 1, "length": text.tokens_NxL.shape[1]}
    return TrainingUnit(
        root=config.paths.cache,
        stage="pretrain",
        model=name,
        seed=config.seed,
        shape=model.model_dump(include={"architecture", "layers", "width", "heads"}) | sizes,
        schedule=Schedule(lr=model.lr, **schedule),
        windows=file,
        windows_hash=tensors.file_hash(file),
        device=config.families[family].device,
        every=config.machine.checkpoint_seconds,
        **fresh,
    )
