"""Turns a torch module into a task on examples in memory, and restores the module afterwards."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from replicate.errors import ArgumentError
from replicate.models.config import TextLoss
from replicate.progress import Advance
from replicate.sampling import Task

Examples = Tensor | NDArray[Any] | Sequence[Any]  # tokens (N, L), or tensors of N examples each
Data = Sequence[Tensor]  # each (N, …); a batch has the same rows of every tensor
LossFn = Callable[..., Tensor]  # takes the module and a batch of each tensor, returns losses (B,)

RESIDENT = 2**30  # bytes of data that a GPU holds, so that no step waits for a copy


def token_losses(model: nn.Module, tokens_BxL: Tensor) -> Tensor:
    """Returns the cross-entropy (nats) of each token except the first, (B, L − 1)."""
    logits_BxTxV = logits(model, tokens_BxL[:, :-1]).float()
    labels_BxT = tokens_BxL[:, 1:].to(logits_BxTxV.device)
    flat = cross_entropy(logits_BxTxV.flatten(0, 1), labels_BxT.flatten(), reduction="none")
    return flat.view(labels_BxT.shape)


def mean_losses(model: nn.Module, tokens_BxL: Tensor) -> Tensor:
    """Returns each window's mean cross-entropy (B,), in nats, over its last L − 1 tokens."""
    return token_losses(model, tokens_BxL).mean(dim=1)


def last_losses(model: nn.Module, tokens_BxL: Tensor) -> Tensor:
    """Returns each window's cross-entropy (B,), in nats, of the last token given the others."""
    logits_BxV = logits(model, tokens_BxL[:, :-1], logits_to_keep=1)[:, -1].float()
    return cross_entropy(logits_BxV, tokens_BxL[:, -1].to(logits_BxV.device), reduction="none")


TEXT_LOSSES: dict[TextLoss, LossFn] = {"tokens": mean_losses, "last": last_losses}


def logits(model: nn.Module, tokens_BxT: Tensor, **options: Any) -> Tensor:
    """Returns the logits (B, T, V) of a module that returns them, or an object that has them."""
    if type(model).forward is nn.Module.forward:
        raise ArgumentError(f"model: {type(model).__name__} has no forward; `llc` takes a loss_fn")
    options, known = {"use_cache": False} | options, inspect.signature(model.forward).parameters
    if "decoder_input_ids" in known:
        raise ArgumentError("model: has an encoder and a decoder; `llc` takes a loss_fn for it")
    found = model(tokens_BxT, **{key: given for key, given in options.items() if key in known})
    found = getattr(found, "logits", found)
    if not isinstance(found, Tensor) or found.dim() != 3:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        problem = f"must return logits (B, T, V), and returns {shape}"
        raise ArgumentError(f"model: {problem}; `llc` takes a loss_fn for other outputs")
    return found


def vocabulary(model: nn.Module) -> int | None:
    """Returns the vocabulary size of a Hugging Face or TransformerLens model, None if unknown."""
    embedding = getattr(model, "get_input_embeddings", lambda: None)()
    if isinstance(embedding, nn.Embedding):
        return embedding.num_embeddings
    return getattr(getattr(model, "cfg", None), "d_vocab", None)


def check_length(model: nn.Module, length: int, what: str) -> None:
    """Refuses (`ArgumentError`, beginning with `what`) windows of more tokens than a model reads,
    which is all but the last.
    """
    positions = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if positions is not None and 0 < positions < length - 1:  # −1 of XLNet is no limit
        said = f"the model takes {positions} of {length} tokens; shorten them"
        raise ArgumentError(f"{what}: {said}")


def device(model: nn.Module) -> torch.device:
    """Returns the device of a module's first parameter.

    Raises:
        ArgumentError: it is no module, or has a parameter that is offloaded or of inference mode.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"model: must be a torch module, not {type(model).__name__}; load it")
    if any(p.device.type == "meta" for p in model.parameters()):
        raise ArgumentError("weights of the model are offloaded; load it where it fits")
    if any(p.is_inference() for p in model.parameters()):
        raise ArgumentError("model: was made in torch.inference_mode; make it outside of it")
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def task(model: nn.Module, data: Data, loss_fn: LossFn, compiled: bool = False) -> Task:
    """Makes a task in which the chains move the parameters that require a gradient.

    Args:
        model: the module at w*.
        data: tensors (N, …). A GPU gets them whole if they have at most `RESIDENT` bytes. Others
            stay where they are, and each batch is copied to the model's device.
        loss_fn: takes the module and a batch of each tensor, returns losses (B,).
        compiled: whether torch compiles the passes of a chain's steps, and a GPU that holds the
            data repeats the steps as graphs.

    Raises:
        ArgumentError: no parameter requires a gradient, one that does is not finite, or a parameter
            is offloaded; or the model is no causal language model and `loss_fn` needs one.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    parameters = list(named.values())
    if not parameters:
        raise ArgumentError("no parameter of the model requires a gradient; set requires_grad")
    place = device(model)
    for name in (name for name, p in named.items() if not p.isfinite().all()):
        raise ArgumentError(f"the weight {name} of the model is not finite; load the model again")

    if place.type == "cuda" and sum(part.nbytes for part in data) <= RESIDENT:
        data = [part.to(place) for part in data]
    resident = place.type == "cuda" and all(part.device == place for part in data)
    if loss_fn in TEXT_LOSSES.values():
        _check_reader(model, data[0].to(place), ahead=loss_fn is mean_losses)

    def loss(index_B: Tensor) -> Tensor:
        found = loss_fn(model, *(part[index_B.to(part.device)].to(place) for part in data))
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        if shape != (len(index_B),):
            said = f"must return a loss for each example, ({len(index_B)},), not {shape}"
            raise ArgumentError(f"loss_fn: {said}")
        if found.is_complex():
            raise ArgumentError(f"loss_fn: must return real numbers, not {found.dtype}")
        return found

    return Task(loss, parameters, compiled=compiled, repeated=compiled and resident)


def _check_reader(model: nn.Module, tokens_NxL: Tensor, ahead: bool) -> None:
    """Checks that a model predicts each token of a window, and with `ahead` not from later ones.

    Raises:
        ArgumentError: it returns logits of other tokens, or of too few; or those of a token change
            with a later one, as in a masked language model.
    """
    window_1xT, most = tokens_NxL[:1, :-1], int(tokens_NxL.max())
    other_1xT = window_1xT.clone()
    other_1xT[:, -1] = (window_1xT[:, -1] == 0).long()
    with torch.no_grad():
        first, again, changed = (
            logits(model, each).float() for each in (window_1xT, window_1xT, other_1xT)
        )
    if first.shape[:2] != window_1xT.shape or first.shape[2] <= most:
        wanted = f"(1, {window_1xT.shape[1]}, V) with V above {most}"
        raise ArgumentError(f"model: must return logits {wanted}, not {tuple(first.shape)}")
    exact = {p.dtype for p in model.parameters()} <= {torch.float32, torch.float64}
    slack = (1e-4 if exact else 3e-2) * first.abs().max()
    moved, chance = (
        (x - first)[:, :-1].abs().amax() if x.shape[1] > 1 else 0 for x in (changed, again)
    )
    if ahead and moved > slack >= chance:
        problem = "each token of this model reads those after it"
        raise ArgumentError(f"model: {problem}; give a causal language model, or loss='last'")


def examples(
    model: nn.Module,
    data: Examples,
    loss: TextLoss,
    loss_fn: LossFn | None,
) -> tuple[Data, LossFn, float | None]:
    """Checks the data, and chooses the loss and the loss of guessing.

    Args:
        model: the module, whose vocabulary must contain the tokens.
        data: tokens (N, L), or with `loss_fn` one or several tensors (N, …).
        loss: the loss on tokens, if `loss_fn` is None.
        loss_fn: the caller's own loss.

    Returns:
        The data as tensors (N, …); the loss function; and the loss of guessing (nats). The last is
        ln of the vocabulary size, or the labels' entropy if that size is unknown, or None with
        `loss_fn`.

    Raises:
        ArgumentError: the data have a wrong shape or type, fewer than two examples, or unknown
            tokens; or `loss` is unknown.
    """
    device(model)
    if loss_fn is not None:
        if not callable(loss_fn):
            raise ArgumentError(f"loss_fn = {loss_fn!r}: must be a function of model and batch")
        parts = [_tensor(part) for part in (data if isinstance(data, list | tuple) else [data])]
        if not parts or any(part.dim() == 0 or len(part) != len(parts[0]) for part in parts):
            raise ArgumentError("data: every tensor must have one entry for each of the N examples")
        if len(parts[0]) < 2:
            raise ArgumentError("data: one example; at least two are needed for λ̂")
        return parts, loss_fn, None
    if not isinstance(loss, str) or loss not in TEXT_LOSSES:
        raise ArgumentError(f"loss = {loss!r}: must be one of {', '.join(TEXT_LOSSES)}")
    tokens_NxL = _tensor(data)
    whole = not (tokens_NxL.dtype.is_floating_point or tokens_NxL.dtype.is_complex)
    whole = whole and tokens_NxL.dtype != torch.bool and tokens_NxL.layout == torch.strided
    if tokens_NxL.dim() != 2 or not whole or tokens_NxL.shape[1] < 2:
        kind = f"{tokens_NxL.dtype} {tuple(tokens_NxL.shape)}"
        raise ArgumentError(f"tokens: must be whole numbers (N, L), L at least 2; they are {kind}")
    if len(tokens_NxL) < 2:
        raise ArgumentError(f"tokens: at least two windows are needed for λ̂, not {len(tokens_NxL)}")
    tokens_NxL = tokens_NxL.long()
    low, high, known = int(tokens_NxL.min()), int(tokens_NxL.max()), vocabulary(model)
    if low < 0 or (known is not None and high >= known):
        wrong = low if low < 0 else high
        raise ArgumentError(f"tokens: {wrong} is not in the model's vocabulary of {known} tokens")
    check_length(model, tokens_NxL.shape[1], "tokens")
    labels = tokens_NxL[:, 1:] if loss == "tokens" else tokens_NxL[:, -1]
    share_V = labels.unique(return_counts=True)[1].double() / labels.numel()
    guess = math.log(known) if known else float(-(share_V * share_V.log()).sum())
    return [tokens_NxL], TEXT_LOSSES[loss], guess


def _tensor(data: Any) -> Tensor:
    try:
        return torch.as_tensor(data)
    except (TypeError, ValueError, RuntimeError):
        kind = type(data).__name__
        raise ArgumentError(f"data: must be tensors or arrays of N examples, not {kind}") from None


def losses(task: Task, examples: int, batch_size: int, advance: Advance) -> NDArray[np.float32]:
    """Returns the loss of each example at w*, (N,).

    Args:
        task: the task, whose parameters are at w*.
        examples: N, the number of examples.
        batch_size: examples in a forward pass.
        advance: reports the examples that are done.

    Raises:
        ArgumentError: a loss is not finite, has a wrong shape, or has no gradient; or the loss of
            an example is not the same in another batch, as with dropout or the batch's statistics.
    """
    batches = torch.arange(examples).split(batch_size)
    first, size = task.loss(batches[0]), len(batches[0])
    if not first.requires_grad:
        raise ArgumentError("the loss does not depend on a parameter that requires a gradient")
    found = []
    with torch.no_grad():
        for index_B in batches:
            found.append(task.loss(index_B).float().cpu())
            advance(len(index_B))
    losses_N = torch.cat(found).numpy()
    if not np.isfinite(losses_N).all():
        example = int(np.flatnonzero(~np.isfinite(losses_N))[0])
        raise ArgumentError(f"the loss at w* is not finite, first for example {example}; check it")
    half = max(1, size // 2)
    with torch.no_grad():
        again = task.loss(batches[0][:half]).float().cpu().numpy()
    rounding = 1e-2 if task.parameters[0].dtype in (torch.float32, torch.float64) else 0.1
    if again.shape != (half,) or not np.allclose(again, losses_N[:half], rounding, rounding):
        raise ArgumentError(
            "the loss of an example changes from call to call, or with its batch (dropout? the"
            " batch's statistics? a shape that broadcasts?); give each example a loss of its own"
        )
    return losses_N


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Puts a module into eval mode, clears its gradients, and restores both at the end.

    Buffers and torch's random state are restored too, and everything even after an error. Autocast
    is switched off, because its rounding would be larger than the differences of losses. The
    parameters are not restored here, because the sampling engine sets them back to w*.
    """
    modes = [(module, module.training) for module in model.modules()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    gpus = {p.device for p, _ in gradients if p.device.type == "cuda"}
    own_dtype = torch.autocast("cuda" if gpus else "cpu", enabled=False)
    with torch.random.fork_rng(gpus), torch.inference_mode(False), torch.enable_grad(), own_dtype:
        try:
            model.eval()
            model.zero_grad(set_to_none=True)
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            for parameter, gradient in gradients:
                parameter.grad = gradient
            for buffer, before in buffers:
                buffer.data.copy_(before)


def count(model: nn.Module) -> int:
    """Counts the weights of a model; a matrix in 4 bits has as many as before it was packed."""
    states = ((weight, getattr(weight, "quant_state", None)) for weight in model.parameters())
    return sum((weight if state is None else state).shape.numel() for weight, state in states)
