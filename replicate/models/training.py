"""Trains a control model, on the windows of its family or on fresh text at every step.

Adam runs at a constant learning rate after a warm-up. Every `check` steps, the mean training loss
is compared with that of the `check` steps before. The rate starts to fall when the loss improves by
less than `tolerance`, and at the latest when the share `descent` of the step limit is left. The
fall is linear, ends at zero, and takes the share `descent` of all steps. The weights at the end are
w*. After epochs over the family's windows, they are near a minimum of the loss over these windows,
which the chains read later. After fresh text, they are near a minimum of the population's loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice
from typing import Protocol

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.optim import Adam
from transformers import PreTrainedModel

from replicate.data import grammar
from replicate.models.config import EVALUATED, Schedule
from replicate.models.module import token_losses
from replicate.progress import Advance
from replicate.seeds import derive

Batches = Callable[[int], Iterator[Tensor]]  # yields the tokens (B, L) of each step from one on


class Checkpoint(Protocol):
    """Saves the state of a training, so that it can be resumed."""

    def load(self) -> dict[str, Tensor] | None:
        """Returns the last saved state, or None if there is none."""

    def offer(self, state: Callable[[], Mapping[str, Tensor]]) -> None:
        """Saves what `state` returns if the last checkpoint is old enough."""


@dataclass(frozen=True)
class Outcome:
    """Holds the result of a training.

    Attributes:
        steps: the number of steps taken.
        flat: whether the loss became flat at the constant rate.
        loss: the mean loss over all positions (nats per token).
        label_loss: the mean loss at the last position (nats).
    """

    steps: int
    flat: bool
    loss: float
    label_loss: float


def train(
    model: PreTrainedModel,
    tokens_NxL: Tensor,
    schedule: Schedule,
    batches: Batches,
    advance: Advance,
    checkpoint: Checkpoint | None = None,
    save: Callable[[int], None] = lambda step: None,
) -> Outcome:
    """Trains the weights of a model that require a gradient, in place.

    Args:
        model: the model with its initial weights.
        tokens_NxL: the windows on which the model is evaluated at the end.
        schedule: the learning rate, the batch size and the length of the training.
        batches: the tokens of each step.
        advance: reports each step.
        checkpoint: saves the state; the training resumes from it if it holds a state.
        save: is called after each step with the number of steps taken.

    Returns:
        The number of steps and the final losses over the first `EVALUATED` windows.
    """
    course = Course(schedule, [w for w in model.parameters() if w.requires_grad])
    if checkpoint is not None and (found := checkpoint.load()) is not None:
        course.restore(found)
        advance(course.step)
    batch_TxBxL = batches(course.step)
    model.train()
    while course.step < course.last:
        for group in course.optimizer.param_groups:
            group["lr"] = schedule.lr * course.rate
        loss = token_losses(model, next(batch_TxBxL)).mean()
        course.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(course.weights, 1.0)
        course.optimizer.step()
        value = loss.item()
        course.record(value)
        advance(note=f"loss {value:.3f}")
        save(course.step)
        if checkpoint is not None:
            checkpoint.offer(course.state)
    loss, label_loss = evaluate(model.eval(), tokens_NxL[:EVALUATED])
    return Outcome(course.step, course.flat, loss, label_loss)


class Course:
    """Holds the state of a training, and computes the next learning rate from the losses so far."""

    def __init__(self, schedule: Schedule, weights: list[nn.Parameter]) -> None:
        self.schedule, self.weights = schedule, weights
        self.optimizer = Adam(weights, lr=schedule.lr, betas=(0.9, 0.98), fused=True)
        self.step, self.last = 0, schedule.steps
        self.descend = int(self.last * (1 - schedule.descent))  # the step from which the rate falls
        self.flat, self.before = False, float("inf")
        self.window: list[float] = []  # losses since the last check

    @property
    def rate(self) -> float:
        """The learning rate of the next step, divided by `schedule.lr`."""
        if self.step >= self.descend:
            return (self.last - self.step) / (self.last - self.descend)
        return min(1.0, (self.step + 1) / max(self.schedule.warmup, 1))

    def record(self, loss: float) -> None:
        """Records the loss of a step (nats per token); if it is flat, the rate starts to fall."""
        self.step += 1
        self.window.append(loss)
        if len(self.window) == self.schedule.check:
            mean, self.window = sum(self.window) / len(self.window), []
            if self.step < self.descend and self.before - mean < self.schedule.tolerance:
                self.flat, self.descend = True, self.step
                share = self.schedule.descent
                self.last = self.step + int(self.step * share / (1 - share))
            self.before = mean

    def state(self) -> dict[str, Tensor]:
        """Returns the state from which a resumed training gives the same bits."""
        state = {
            "course": torch.tensor([self.step, self.last, self.descend, self.flat]),
            "losses": torch.tensor([self.before, *self.window], dtype=torch.float64),
        }
        for i, weight in enumerate(self.weights):
            moments = self.optimizer.state[weight]
            state |= {f"{name}.{i}": value for name, value in moments.items()}
            state[f"weight.{i}"] = weight
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restores the schedule, the weights and the optimizer from a state."""
        self.step, self.last, self.descend, flat = state["course"].tolist()
        self.flat = bool(flat)
        self.before, *self.window = state["losses"].tolist()
        moments = {
            i: {name: state[f"{name}.{i}"] for name in ("step", "exp_avg", "exp_avg_sq")}
            for i in range(len(self.weights))
        }
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        with torch.no_grad():
            for i, weight in enumerate(self.weights):
                weight.copy_(state[f"weight.{i}"])


def epochs(tokens_NxL: Tensor, batch_size: int, generator: torch.Generator) -> Batches:
    """Returns the full batches of windows of endless epochs; each has a new random order."""
    N, B = len(tokens_NxL), min(batch_size, len(tokens_NxL))

    def indices() -> Iterator[Tensor]:
        while True:
            yield from torch.randperm(N, generator=generator).split(B)[: N // B]

    return lambda start: (tokens_NxL[index] for index in islice(indices(), start, None))


def fresh(
    tokenizer: Tokenizer, batch_size: int, length: int, seed: int, device: torch.device
) -> Batches:
    """Returns the batches of windows of text that the built-in grammar writes for each step.

    The text of a step depends on `seed` and the step alone. It is drawn independently of all other
    text, so the loss before a step is an unbiased estimate of the population's loss.

    Args:
        tokenizer: the tokenizer of the family; none of its tokens may be in two words.
        batch_size: the number of windows in a batch.
        length: L, the number of tokens in a window.
        seed: of the text.
        device: where the batches are needed.
    """

    def batch(step: int) -> Tensor:
        texts = grammar.beginnings(derive(seed, step), length)
        encoded = (tokenizer.encode(text).ids for text in texts)
        rows = (tokens[:length] for tokens in encoded if len(tokens) >= length)
        return torch.tensor(list(islice(rows, batch_size)), device=device)

    return lambda start: map(batch, count(start))


@torch.no_grad()
def evaluate(model: PreTrainedModel, tokens_NxL: Tensor) -> tuple[float, float]:
    """Returns the mean loss over all positions and over the last positions (nats per token)."""
    losses = torch.cat([token_losses(model, batch) for batch in tokens_NxL.split(64)])
    return losses.mean().item(), losses[:, -1].mean().item()
