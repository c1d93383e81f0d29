"""Samples text from a language model itself, so that w* is a minimum of the loss on this text.

On other text w* is no minimum of the loss: the loss has a gradient there, by which λ̂ can be
negative. Text that is sampled from the model at temperature 1 is the realisable case. The expected
loss of a token, given those before it, is a cross-entropy with the model's own distribution at w*,
and is least where the model equals this distribution (Gibbs' inequality). So w* minimises the
expected loss exactly, and its Hessian is the Fisher information, which is positive semi-definite.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from replicate.errors import ArgumentError
from replicate.models import module
from replicate.progress import Advance
from replicate.seeds import derive

Start = int | Sequence[float] | NDArray[Any] | Tensor | None


def sample_text(
    model: nn.Module,
    windows: int,
    length: int,
    *,
    seed: int,
    batch_size: int,
    start: Start,
    advance: Advance,
) -> NDArray[np.int64]:
    """Returns windows (N, L) of tokens; `replicate.api.sample_text` describes it.

    Args:
        model: takes tokens (B, L) and returns logits (B, L, V) or an object that has them as
            `logits`.
        windows: N, the number of windows.
        length: L, the number of tokens in a window.
        seed: the seed of all draws.
        batch_size: windows in a forward pass.
        start: the first token, or the probability of each token (V,) to be the first; None for the
            model's bos token, or for a uniform draw if the vocabulary has no such token.
        advance: reports the windows that are done.

    Raises:
        ArgumentError: the model cannot read L − 1 tokens, returns no logits or some that are not
            finite; or `start` is not in its vocabulary.
    """
    device = module.device(model)
    module.check_length(model, length, "length")
    with module.untouched(model), torch.no_grad():
        logits = module.logits(model, torch.zeros(1, 1, dtype=torch.long, device=device))
        begin_V = _probabilities(model, start, logits)
        # each window has its own numbers, whatever the size of a batch or the number of windows
        uniform_NxL = np.random.default_rng(derive(seed, "sampled text")).random((windows, length))
        found = []
        for uniform_BxL in torch.from_numpy(uniform_NxL).split(batch_size):
            found.append(_sample(model, begin_V, uniform_BxL, device))
            advance(len(uniform_BxL))
    return torch.cat(found).numpy()


def _sample(model: nn.Module, begin_V: Tensor, uniform_BxL: Tensor, device: torch.device) -> Tensor:
    """Samples a batch of windows (B, L), each token by the inverse of its distribution function."""
    uniform_BxL = uniform_BxL.to(begin_V.device)
    tokens_BxT = _draw(begin_V.expand(len(uniform_BxL), -1), uniform_BxL[:, :1]).to(device)
    following, valid = _reader(model), torch.ones((), dtype=torch.bool, device=begin_V.device)
    for uniform_Bx1 in uniform_BxL[:, 1:].split(1, dim=1):
        p_BxV = following(tokens_BxT).softmax(dim=-1, dtype=torch.float64)
        valid &= p_BxV.isfinite().all().to(valid.device)
        tokens_BxT = torch.cat([tokens_BxT, _draw(p_BxV, uniform_Bx1).to(device)], dim=1)
    if not valid:
        raise ArgumentError(
            "the model's logits are not finite, so no text can be sampled; check it"
        )
    return tokens_BxT.cpu()


def _draw(p_BxV: Tensor, uniform_Bx1: Tensor) -> Tensor:
    """Returns a token (B, 1) of each distribution: the first whose cumulative share is greater."""
    share_BxV = p_BxV.cumsum(dim=-1)
    wanted = uniform_Bx1.to(p_BxV.device) * share_BxV[:, -1:]
    return torch.searchsorted(share_BxV, wanted, right=True).clamp(max=p_BxV.shape[-1] - 1)


def _reader(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Returns a function from tokens (B, T) to the logits (B, V) of the token after them.

    The function is called with one token more each time. A Hugging Face model keeps its keys and
    values between the calls, if it can; any other model reads all tokens each time.
    """
    accepted = inspect.signature(model.forward).parameters
    last: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
    if "past_key_values" not in accepted or "use_cache" not in accepted:
        return lambda tokens_BxT: module.logits(model, tokens_BxT, **last)[:, -1]
    past: Any = None

    def read(tokens_BxT: Tensor) -> Tensor:
        nonlocal past
        new = tokens_BxT if past is None else tokens_BxT[:, -1:]
        found = model(new, past_key_values=past, use_cache=True, **last)
        past = getattr(found, "past_key_values", None)
        return found.logits[:, -1]

    return read


def _probabilities(model: nn.Module, start: Start, logits: Tensor) -> Tensor:
    """Returns the probability (V,) of each token to be the first, on the device of the logits."""
    size = module.vocabulary(model) or logits.shape[-1]
    p_V = torch.zeros(size, dtype=torch.float64, device=logits.device)
    if start is None:
        config = getattr(model, "config", None)
        text_config = getattr(config, "get_text_config", lambda: config)()
        bos = getattr(text_config, "bos_token_id", None)
        known = isinstance(bos, int) and 0 <= bos < size
        return p_V.index_fill(0, torch.tensor(bos).to(p_V.device), 1) if known else p_V + 1 / size
    wrong = f"start: must be a token, or {size} probabilities, one for each token"
    try:
        given = torch.as_tensor(start)
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentError(wrong) from None
    if given.dim() == 0 and given.dtype in (torch.int64, torch.int32):
        if not 0 <= int(given) < size:
            raise ArgumentError(f"start = {start}: is not in the vocabulary of {size} tokens")
        return p_V.index_fill(0, given.to(p_V.device), 1)
    if given.shape != (size,) or not (given >= 0).all() or not 0 < float(given.sum()) < np.inf:
        raise ArgumentError(wrong)
    return given.to(p_V)
