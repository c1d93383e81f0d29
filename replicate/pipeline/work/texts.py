"""Defines the unit of work that samples a model's own text, which stage `baseline` runs first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from replicate.data.windows import Windows
from replicate.models.config import TaskConfig
from replicate.pipeline.config import Config
from replicate.pipeline.parallel import run_units
from replicate.pipeline.work import plans, units
from replicate.progress import Advance
from replicate.seeds import derive

PIECE = 256  # the most windows of a unit


@dataclass(frozen=True)
class TextUnit(units.CachedUnit):
    """A unit that samples windows from a model at w*.

    Attributes:
        task: the model, in the formats in which its chains run; it has no windows.
        piece: the number of the unit among those of the model.
        seed: of the unit's draws.
        windows: the number of windows.
        length: the number of tokens in a window.
        batch_size: the number of windows in a forward pass.
    """

    task: TaskConfig
    piece: int
    seed: int
    windows: int
    length: int
    batch_size: int

    @property
    def name(self) -> str:
        return f"text of {self.task.model}, part {self.piece}"

    @property
    def steps(self) -> int:
        return self.windows

    def settings(self) -> dict[str, Any]:
        numbers = self.seed, self.windows, self.length, self.batch_size
        return {"text": self.task.identity(), "numbers": numbers}

    def run(self, advance: Advance) -> None:
        import torch

        from replicate.models import generation

        task = units.load(self.task)
        rounded, device = self.task.compute_dtype == "bfloat16", task.tokens_NxL.device.type
        with torch.autocast(device, torch.bfloat16, rounded):
            tokens_NxL = generation.sample_text(
                task.model,
                self.windows,
                self.length,
                seed=self.seed,
                batch_size=self.batch_size,
                start=None,
                advance=advance,
            )
        self.write({"tokens": tokens_NxL.astype(np.int32)})


def seed(config: Config, model: str) -> int:
    """Returns the seed of a model's text, from which those of its units are derived."""
    return derive(config.seed, "text", model)


def text_units(config: Config, model: str) -> list[TextUnit]:
    """Returns the units that sample a model's text, in the order of the windows."""
    name = config.family_of(model)
    family, corpus = config.families[name], config.sampled(name)
    assert corpus is not None, "a family whose models sample no text"
    task = plans.task_config(config, model, file=None)
    # the text is the same for any loss; a model that recomputes activations keeps no keys
    task = replace(task, loss="tokens", together=1, gradient_checkpointing=False)
    return [
        TextUnit(
            root=config.paths.cache,
            stage="baseline",
            task=task,
            piece=first // PIECE,
            seed=derive(seed(config, model), first // PIECE),
            windows=min(PIECE, corpus.windows - first),
            length=family.length,
            batch_size=family.microbatch_size or config.baseline.batch_size,
        )
        for first in range(0, corpus.windows, PIECE)
    ]


def write(config: Config, family: str, models: list[str]) -> None:
    """Samples the text of models of a family, and writes the windows of each."""
    pieces = {model: text_units(config, model) for model in models}
    every = [unit for each in pieces.values() for unit in each]
    run_units(every, config.machine, f"text of {family}", config.families[family].gpus_per_model)
    for model, mine in pieces.items():
        tokens_NxL = np.concatenate([unit.read()[0]["tokens"] for unit in mine])
        N, folder = len(tokens_NxL), plans.windows_folder(config, model)
        folder.mkdir(parents=True, exist_ok=True)
        found = Windows(tokens_NxL, np.arange(N, dtype=np.int32), np.zeros(N, bool), None, {})
        found.save(folder / plans.WINDOWS)
        print(f"{model}: sampled {N} windows of {tokens_NxL.shape[1]} tokens from itself")
