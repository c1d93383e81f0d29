"""Trains a control model on a family's windows until its loss is flat.

Adam at a constant rate after a warm-up; every `check` steps the mean training loss is compared with
that of the steps before; when it improves by less than `tolerance`, or at the step limit, the rate
descends linearly to zero over the last `descent` share of all steps. What remains at the end is the
loss at w*, near a minimum of the loss over the very windows that are sampled later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from replicate.progress import Advance, Rest, Restless

EVALUATED = 4096  # windows, the first ones, that the final losses are means over


@dataclass(frozen=True)
class Schedule:
    lr: float
    batch_size: int
    warmup: int
    check: int
    tolerance: float
    descent: float
    steps: int


@dataclass(frozen=True)
class Outcome:
    """Steps taken, whether the loss was flat at the constant rate, and the final losses (nats per
    token; at the last position).
    """

    steps: int
    flat: bool
    loss: float
    label_loss: float


def token_losses(model: PreTrainedModel, tokens_BxL: Tensor) -> Tensor:
    """Cross-entropy (nats) of every token but the first, shape (B, L − 1)."""
    logits = model(input_ids=tokens_BxL[:, :-1], use_cache=False).logits
    return cross_entropy(
        logits.float().flatten(0, 1), tokens_BxL[:, 1:].flatten(), reduction="none"
    ).view(len(tokens_BxL), -1)


def train(
    model: PreTrainedModel,
    tokens_NxL: Tensor,
    schedule: Schedule,
    generator: torch.Generator,
    advance: Advance,
    rest: Rest | None = None,
) -> Outcome:
    """Trains the model in place. `generator` orders the windows; `advance` is told of every step;
    training that was interrupted goes on from where it rests.
    """
    N, B = len(tokens_NxL), min(schedule.batch_size, len(tokens_NxL))
    weights = list(model.parameters())
    optimizer = torch.optim.Adam(weights, lr=schedule.lr, betas=(0.9, 0.98), fused=True)
    course = Course(schedule)
    rest = rest or Restless()
    if (found := rest.load()) is not None:
        course.restore(found, weights, optimizer)
        advance(course.step)
    batch = islice(batches(N, B, generator), course.step, None)
    model.train()
    while course.step < course.last:
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr * course.rate
        loss = token_losses(model, tokens_NxL[next(batch)]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        value = loss.item()
        course.record(value)
        advance(note=f"loss {value:.3f}")
        rest.offer(lambda: course.state(weights, optimizer))
    loss, label_loss = evaluate(model.eval(), tokens_NxL[:EVALUATED])
    return Outcome(course.step, course.flat, loss, label_loss)


class Course:
    """How far a training is, and where it descends and ends."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.step, self.last = 0, schedule.steps
        self.descend = int(self.last * (1 - schedule.descent))
        self.flat, self.before = False, float("inf")
        self.window: list[float] = []  # losses since the last check

    @property
    def rate(self) -> float:
        """Of the next step, relative to the schedule's."""
        if self.step >= self.descend:
            return (self.last - self.step) / (self.last - self.descend)
        return min(1.0, (self.step + 1) / max(self.schedule.warmup, 1))

    def record(self, loss: float) -> None:
        self.step += 1
        self.window.append(loss)
        if len(self.window) == self.schedule.check:
            mean, self.window = sum(self.window) / len(self.window), []
            if self.step < self.descend and self.before - mean < self.schedule.tolerance:
                self.flat, self.descend = True, self.step
                self.last = self.step + int(
                    self.step * self.schedule.descent / (1 - self.schedule.descent)
                )
            self.before = mean

    def state(
        self, weights: Sequence[Tensor], optimizer: torch.optim.Optimizer
    ) -> dict[str, Tensor]:
        state = {
            "course": torch.tensor([self.step, self.last, self.descend, self.flat]),
            "losses": torch.tensor([self.before, *self.window], dtype=torch.float64),
        }
        for i, weight in enumerate(weights):
            state[f"weight.{i}"] = weight
            state |= {f"{name}.{i}": value for name, value in optimizer.state[weight].items()}
        return state

    def restore(
        self,
        state: Mapping[str, Tensor],
        weights: Sequence[Tensor],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.step, self.last, self.descend, flat = state["course"].tolist()
        self.flat = bool(flat)
        self.before, *self.window = state["losses"].tolist()
        moments = {
            i: {name: state[f"{name}.{i}"] for name in ("step", "exp_avg", "exp_avg_sq")}
            for i in range(len(weights))
        }
        optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
        with torch.no_grad():
            for i, weight in enumerate(weights):
                weight.copy_(state[f"weight.{i}"])


def batches(windows: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of whole batches, epoch after epoch, each in an order of its own."""
    while True:
        yield from torch.randperm(windows, generator=generator).split(batch_size)[
            : windows // batch_size
        ]


@torch.no_grad()
def evaluate(
    model: PreTrainedModel, tokens_NxL: Tensor, batch_size: int = 64
) -> tuple[float, float]:
    """Mean loss over all positions of the windows, and over their last positions (nats per
    token).
    """
    losses = torch.cat([token_losses(model, batch) for batch in tokens_NxL.split(batch_size)])
    return losses.mean().item(), losses[:, -1].mean().item()
