"""A control model learns what the text holds, and the same twice."""

from __future__ import annotations

import numpy as np
import torch

from replicate.data import grammar, windows
from replicate.models import loading as models
from replicate.models import training as pretrain

SCHEDULE = pretrain.Schedule(
    lr=0.01, batch_size=16, warmup=5, check=20, tolerance=1e-9, descent=0.3, steps=80
)


def text() -> torch.Tensor:
    texts = [grammar.text(choices) for choices in grammar.reviews(0, 400)]
    return torch.from_numpy(
        windows.select(texts, windows.train_tokenizer(texts, 400), 48).tokens_NxL
    ).long()


TOKENS = text()


def trained(schedule: pretrain.Schedule = SCHEDULE) -> tuple[pretrain.Outcome, list[str]]:
    torch.manual_seed(0)
    model = models.build("gpt2", layers=1, width=32, heads=2, vocabulary=400, length=48)
    notes: list[str] = []
    outcome = pretrain.train(
        model,
        TOKENS,
        schedule,
        torch.Generator().manual_seed(0),
        lambda steps=1, note="": notes.append(note),
    )
    return outcome, notes


def test_it_predicts_better_than_word_frequencies() -> None:
    counts = np.bincount(TOKENS[:, 1:].flatten().numpy(), minlength=400)
    p = counts[counts > 0] / counts.sum()
    outcome, notes = trained()
    assert outcome.loss < 0.7 * -(p * np.log(p)).sum()
    assert outcome.steps == len(notes) == 80


def test_the_same_seeds_give_the_same_losses() -> None:
    assert trained() == trained()


def test_it_stops_early_and_says_flat_where_the_loss_is_flat() -> None:
    """With a tolerance that everything meets, the second look ends the constant phase at step 40:
    17 more of descent.
    """
    patient = pretrain.Schedule(
        lr=0.01, batch_size=16, warmup=5, check=20, tolerance=100.0, descent=0.3, steps=1000
    )
    outcome, _ = trained(patient)
    assert (outcome.flat, outcome.steps) == (True, 57)
    assert not trained()[0].flat


def test_every_window_is_seen_once_an_epoch() -> None:
    batches = pretrain.batches(10, 3, torch.Generator().manual_seed(0))
    epoch = torch.cat([next(batches) for _ in range(3)])
    assert len(set(epoch.tolist())) == 9
