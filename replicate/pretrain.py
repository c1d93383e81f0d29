"""Trains a control model on a family's windows until its loss is flat.

Adam at a constant rate after a warm-up; every `check` steps the mean training loss is compared with that of the steps before; when it
improves by less than `tolerance`, or at the step limit, the rate descends linearly to zero over the last `descent` share of all steps.
What remains at the end is the loss at w*, near a minimum of the loss over the very windows that are sampled later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from replicate.progress import Advance

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
    """Steps taken, whether the loss was flat at the constant rate, and the final losses (nats per token; at the last position)."""

    steps: int
    flat: bool
    loss: float
    label_loss: float


def token_losses(model: PreTrainedModel, tokens_BxL: Tensor) -> Tensor:
    """Cross-entropy (nats) of every token but the first, shape (B, L − 1)."""
    logits = model(input_ids=tokens_BxL[:, :-1], use_cache=False).logits
    return cross_entropy(logits.float().flatten(0, 1), tokens_BxL[:, 1:].flatten(), reduction="none").view(len(tokens_BxL), -1)


def train(model: PreTrainedModel, tokens_NxL: Tensor, schedule: Schedule, generator: torch.Generator, advance: Advance) -> Outcome:
    """Trains the model in place. `generator` orders the windows; `advance` is told of every step."""
    N, B = len(tokens_NxL), min(schedule.batch_size, len(tokens_NxL))
    last = schedule.steps
    optimizer = torch.optim.Adam(model.parameters(), lr=schedule.lr, betas=(0.9, 0.98), fused=True)
    flat, descend, before, window, step = False, int(last * (1 - schedule.descent)), float("inf"), [], 0
    batch = batches(N, B, generator)
    model.train()
    while step < last:
        rate = min(1.0, (step + 1) / max(schedule.warmup, 1))
        if step >= descend:
            rate = (last - step) / (last - descend)
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr * rate
        loss = token_losses(model, tokens_NxL[next(batch)]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        window.append(loss.item())
        advance(note=f"loss {window[-1]:.3f}")
        if len(window) == schedule.check:
            mean, window = sum(window) / len(window), []
            if step < descend and before - mean < schedule.tolerance:
                flat, descend = True, step
                last = step + int(step * schedule.descent / (1 - schedule.descent))
            before = mean
    loss, label_loss = evaluate(model.eval(), tokens_NxL[:EVALUATED])
    return Outcome(step, flat, loss, label_loss)


def batches(windows: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of whole batches, epoch after epoch, each in an order of its own."""
    while True:
        yield from torch.randperm(windows, generator=generator).split(batch_size)[: windows // batch_size]


@torch.no_grad()
def evaluate(model: PreTrainedModel, tokens_NxL: Tensor, batch_size: int = 64) -> tuple[float, float]:
    """Mean loss over all positions of the windows, and over their last positions (nats per token)."""
    losses = torch.cat([token_losses(model, batch) for batch in tokens_NxL.split(batch_size)])
    return losses.mean().item(), losses[:, -1].mean().item()
