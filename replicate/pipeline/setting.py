"""Defines the unit of stage `settings`: λ̂ of one model, or checkpoint, at one setting."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr

from replicate.data import traces, windows
from replicate.errors import UserError
from replicate.models.config import Schedule, TaskConfig
from replicate.pipeline import environment
from replicate.pipeline.cache import code_hash
from replicate.pipeline.work.units import CachedUnit
from replicate.progress import Advance, silent
from replicate.seeds import derive


@dataclass(frozen=True)
class SettingUnit(CachedUnit):
    """A unit that estimates λ̂ by `llc` with chains that choose their step and their length.

    Attributes:
        task: the model and its windows; its folder is that of the checkpoint, if one is measured.
        nbeta, localization: nβ and γ; None to choose them from the model.
        precision, budget, chains, batch_size, microbatch_size: see `replicate.llc`.
        text: *corpus* for the family's windows, or *sampled*.
        rescaled: the symmetry by which the model gets other weights first; None for none.
        step: of the checkpoint; None for w*.
        seed: of params.yaml.
        lr, controlled: the step of another training's chains, and whether their minibatches have
            less noise (`replicate.sampling.control`); None to choose.
        again: how the weights that move are trained on fresh text before the chains; None if they
            are not.
    """

    task: TaskConfig
    nbeta: float | None
    localization: float | None
    precision: float
    budget: int
    chains: int
    batch_size: int
    microbatch_size: int | None
    text: str
    rescaled: str | None
    step: int | None
    seed: int
    lr: float | None = None
    controlled: bool = False
    again: Schedule | None = None

    @property
    def name(self) -> str:
        return f"{self.task.model}, {self.which}"

    @property
    def which(self) -> str:
        """The setting's name, which is also that of its folder."""
        numbers = self.nbeta, self.localization
        parts = ["chosen" if number is None else f"{number:g}" for number in numbers]
        parts += [self.task.loss, self.text]
        parts += [self.rescaled] if self.rescaled else []
        parts += [f"step-{self.step}"] if self.step is not None else []
        parts += [f"minimised-{self.again.steps}"] if self.again is not None else []
        return "_".join(parts)

    @property
    def steps(self) -> int:
        return self.budget

    def settings(self) -> dict[str, Any]:
        found = asdict(self) | {"task": self.task.identity() | {"loss": self.task.loss}}
        del found["root"], found["stage"]
        return found | {"family": self.task.family, "model": self.task.model}

    def done(self) -> bool:
        try:
            traces.load(self.file)
        except UserError:  # it is missing or damaged
            return False
        return True

    def run(self, advance: Advance) -> None:
        import torch

        from replicate import api, estimating
        from replicate.models import loading, symmetries, training

        if self.step is not None and not self.task.folder.exists():
            said = f"has no weights; remove data/kept/{self.task.family} to train the model again"
            raise UserError(f"{self.task.folder}: {said}")
        task = self.task
        device = loading.device(task.device, task.model, task.gpus_per_model)
        model = loading.load(
            task.folder,
            task.weights,
            device,
            task.compute_dtype,
            task.gpus_per_model,
            task.left_unquantised,
        )
        if task.compute_dtype == "bfloat16":
            model.forward = torch.autocast(device.type, torch.bfloat16)(model.forward)
        if task.gradient_checkpointing:
            loading.checkpoint_gradients(model)
        if self.rescaled is not None:
            model = symmetries.rescaled(model, self.rescaled)
        assert task.windows is not None, "a family whose models sample their own text"
        tokens_NxL = windows.load(task.windows).tokens_NxL
        if self.again is not None:
            tokenizer = windows.read_tokenizer(task.windows.parent)
            seed, B = derive(self.seed, "again", task.model), self.again.batch_size
            fresh = training.fresh(tokenizer, B, tokens_NxL.shape[1], seed, device)
            known = torch.from_numpy(tokens_NxL).long().to(device)
            training.train(model, known, self.again, fresh, silent)
        if self.text == "sampled":
            seed = derive(self.seed, "text", self.task.model)
            tokens_NxL = api.sample_text(model, *tokens_NxL.shape, seed=seed, show_progress=False)
        estimate = estimating.to_precision(
            model,
            torch.from_numpy(tokens_NxL),
            self.nbeta,
            self.localization,
            self.lr,
            self.controlled,
            self.precision,
            self.budget,
            loss=self.task.loss,
            chains=self.chains,
            batch_size=min(self.batch_size, len(tokens_NxL)),
            microbatch_size=self.microbatch_size,
            compiled=task.compiled and device.type == "cuda",
            seed=derive(self.seed, "setting", self.task.family),
            show_progress=False,
        )
        found = estimate.trace
        partial = self.file.with_suffix(".partial")
        attributes = self.planned()
        attributes["setting"] |= {"precision": self.precision, "budget": self.budget}
        attributes |= {key: found.attrs[key] | attributes[key] for key in ("task", "sampler")}
        attributes |= {"code": code_hash(self.stage), "machine": environment.sampling()}
        found = found.map(lambda each: each.astype(np.float32) if each.dtype == float else each)
        traces.save(found.assign_attrs(attributes), partial)
        shutil.rmtree(self.file, ignore_errors=True)
        partial.rename(self.file)
        advance(self.steps, self.name)

    def planned(self) -> dict[str, Any]:
        """Returns the attributes that a trace of this unit must have.

        How precise λ̂ is, and after how many gradients it ends, are not among them.
        """
        given = ("nbeta", "localization", "text", "rescaled", "step")
        setting = {name: getattr(self, name) for name in given}
        if self.again is not None:
            setting["minimised"] = self.again.steps
        return {
            "stage": self.stage,
            "family": self.task.family,
            "model": self.task.model,
            "seed": self.seed,
            "setting": setting,
            "task": self.task.identity() | {"loss": self.task.loss},
            "sampler": {} if self.localization is None else {"localization": self.localization},
        }

    def trace(self) -> xr.Dataset:
        """Returns the trace of the finished unit."""
        return traces.load(self.file)
