"""A control model learns what the text holds, the same twice and after an interruption."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from replicate.data import grammar, windows
from replicate.models import training
from replicate.models.config import Schedule
from replicate.progress import silent
from replicate.seeds import derive
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
    batches = training.epochs(TOKENS, 16, torch.Generator().manual_seed(0))
    return training.train(model, TOKENS, schedule, batches, silent, checkpoint)


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
    batches = training.epochs(torch.arange(10), 3, torch.Generator().manual_seed(0))(0)
    epoch = torch.cat([next(batches) for _ in range(3)])
    assert len(set(epoch.tolist())) == 9


def fresh(steps: int, seed: int = 1, *, length: int = 48, start: int = 0) -> Tensor:
    """Returns windows of the steps from `start` on, 16 of each."""
    batches = training.fresh(TOKENIZER, 16, length, seed, torch.device("cpu"))(start)
    return torch.cat([next(batches) for _ in range(steps)])


def test_fresh_text_was_not_there_before_in_a_training_another_or_the_family() -> None:
    """Windows of 90 tokens are too long for the grammar to write one twice by chance."""
    family = torch.from_numpy(windows.select(TEXTS, TOKENIZER, 90).tokens_NxL).long()
    every = torch.cat([family, fresh(60, length=90), fresh(60, seed=2, length=90)])
    assert len(torch.unique(every, dim=0)) == len(family) + 2 * 60 * 16


def test_fresh_text_of_a_step_does_not_depend_on_where_a_training_resumes() -> None:
    assert torch.equal(fresh(3, start=5), fresh(8)[5 * 16 :])


@pytest.mark.parametrize("length", [12, 48, 120])
def test_fresh_windows_are_those_of_whole_reviews(length: int) -> None:
    """Only the words that a window needs are written, and short reviews are left out."""
    texts = [grammar.text(choices) for choices in grammar.reviews(derive(1, 0), 60)]
    expected = windows.select(texts, TOKENIZER, length).tokens_NxL[:16]
    np.testing.assert_array_equal(fresh(1, length=length).numpy(), expected)


def test_the_rate_of_a_schedule_without_checks_is_constant_and_then_falls_to_zero() -> None:
    """After a warm-up of 5 steps, 80 steps have 40 at the whole rate and 40 on a straight line."""
    schedule = replace(SCHEDULE, check=80, descent=0.5)
    course, rates = training.Course(schedule, [nn.Parameter(torch.zeros(1))]), []
    while course.step < course.last:
        rates.append(course.rate)
        course.record(1.0)
    assert rates[:5] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert rates[5:40] == [1.0] * 35
    np.testing.assert_allclose(rates[40:], np.linspace(1.0, 0.0, 41)[:-1])
