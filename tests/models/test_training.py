"""A control model learns what the text holds, the same twice and after an interruption."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from replicate.data import grammar, windows
from replicate.models import training
from replicate.models.config import Schedule
from replicate.progress import silent
from tests.models.small_task import build

SCHEDULE = Schedule(0.01, 16, warmup=5, check=20, tolerance=1e-9, descent=0.3, steps=80)
TEXTS = [grammar.text(choices) for choices in grammar.reviews(0, 400)]
TOKENIZER = windows.train_tokenizer(TEXTS, 400)
TOKENS = torch.from_numpy(windows.select(TEXTS, TOKENIZER, 48).tokens_NxL).long()


class Memory:
    """A checkpoint that keeps the state after a step."""

    def __init__(self, step: int) -> None:
        self.left, self.state = step, None

    def load(self) -> dict[str, Tensor] | None:
        return self.state

    def offer(self, state: Callable[[], Mapping[str, Tensor]]) -> None:
        self.left -= 1
        if self.left == 0:
            self.state = {name: tensor.clone() for name, tensor in state().items()}


def trained(
    schedule: Schedule = SCHEDULE, checkpoint: training.Checkpoint | None = None
) -> training.Outcome:
    model = build(width=32, vocabulary=400, length=48)
    generator = torch.Generator().manual_seed(0)
    return training.train(model, TOKENS, schedule, generator, silent, checkpoint)


def test_it_predicts_better_than_word_frequencies_and_the_same_twice() -> None:
    counts = np.bincount(TOKENS[:, 1:].flatten().numpy(), minlength=400)
    p = counts[counts > 0] / counts.sum()
    outcome = trained()
    assert outcome.loss < 0.7 * -(p * np.log(p)).sum()
    assert outcome.steps == 80
    assert trained() == outcome


def test_it_stops_early_and_says_flat_if_the_loss_is_flat() -> None:
    """A tolerance that all losses meet ends the constant phase at the second check, step 40."""
    outcome = trained(replace(SCHEDULE, tolerance=100.0, steps=1000))
    assert (outcome.flat, outcome.steps) == (True, 57)  # 17 more steps of descent
    assert not trained().flat


def test_a_training_that_is_resumed_ends_at_the_same_bits() -> None:
    """The state is that of step 45, within a window of losses and in the descent."""
    schedule, memory = replace(SCHEDULE, tolerance=100.0, steps=1000), Memory(45)
    whole = trained(schedule, memory)
    assert memory.state is not None
    assert trained(schedule, memory) == whole


def test_every_window_is_seen_once_an_epoch() -> None:
    batches = training.batches(10, 3, torch.Generator().manual_seed(0))
    epoch = torch.cat([next(batches) for _ in range(3)])
    assert len(set(epoch.tolist())) == 9
