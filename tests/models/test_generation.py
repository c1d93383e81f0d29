"""Sampled text has the model's own distribution, and the loss on it has no gradient at w*."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from replicate import sample_text
from replicate.errors import ArgumentError
from replicate.models import module, pretrained
from tests.conftest import shared
from tests.models import small_task
from tests.models.small_modules import Lens
from tests.test_api import state

VOCABULARY = 12


def sharp(architecture: str) -> Any:
    """A model whose distributions are far from uniform, with a Hugging Face model's defaults."""
    model = small_task.build(architecture)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name and "ln_" not in name:
                weight.mul_(12)
    return model.eval()


class Recomputed(nn.Module):
    """The same model without keys and values that are kept; its logits are a tensor."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(tokens, use_cache=False).logits


MODELS: dict[str, Callable[[], Any]] = {
    "GPT-2": lambda: sharp("gpt2"),
    "Llama": lambda: sharp("llama"),
    "without a cache": lambda: Recomputed(sharp("gpt2")),
}


def text(model: nn.Module, windows: int = 60, length: int = 10, **other: Any) -> NDArray[np.int64]:
    return sample_text(model, windows, length, show_progress=False, **other)


def p(model: nn.Module, context: list[int]) -> NDArray[np.float64]:
    """The model's distribution of the token after a context, (V,)."""
    with torch.no_grad():
        logits_V = module.logits(model, torch.tensor([context]))[0, -1]
    return logits_V.double().softmax(-1).numpy()


def agrees(tokens_N: NDArray[np.int64], p_V: NDArray[np.float64]) -> bool:
    """Whether tokens have this distribution, by Pearson's test at the level 0.001."""
    counts_V = np.bincount(tokens_N, minlength=len(p_V))
    many_V = p_V * len(tokens_N) > 5
    observed = [*counts_V[many_V], counts_V[~many_V].sum()]
    expected = [*(p_V * len(tokens_N))[many_V], (p_V * len(tokens_N))[~many_V].sum()]
    last = None if expected[-1] else -1
    return bool(stats.chisquare(observed[:last], expected[:last]).pvalue > 0.001)


@pytest.mark.parametrize("name", MODELS)
def test_each_token_has_the_distribution_that_the_model_gives_it(name: str) -> None:
    model = MODELS[name]()
    tokens_NxL = text(model, 4000, 4, start=3, batch_size=500)
    assert agrees(tokens_NxL[:, 1], p(model, [3]))
    assert not agrees(tokens_NxL[:, 1], np.full(VOCABULARY, 1 / VOCABULARY))
    contexts, counts = np.unique(tokens_NxL[:, :3], axis=0, return_counts=True)
    common = contexts[counts.argmax()]
    after = tokens_NxL[(tokens_NxL[:, :3] == common).all(axis=1), 3]
    assert len(after) > 100
    assert agrees(after, p(model, common.tolist()))


def test_what_generate_would_alter_alters_nothing() -> None:
    model = sharp("gpt2")
    before = text(model)
    settings = {"top_k": 1, "top_p": 0.1, "temperature": 0.1, "repetition_penalty": 5.0}
    model.generation_config.update(**settings, bad_words_ids=[[3]], max_new_tokens=2)
    np.testing.assert_array_equal(text(model), before)
    model.config.use_cache = False
    np.testing.assert_array_equal(text(model), before)


def test_kept_keys_and_values_batches_and_more_windows_change_no_token() -> None:
    for architecture in ("gpt2", "llama"):
        model = sharp(architecture)
        tokens_NxL = text(model)
        assert tokens_NxL.shape == (60, 10)
        assert tokens_NxL.dtype == np.int64
        np.testing.assert_array_equal(text(Recomputed(model)), tokens_NxL)
        np.testing.assert_array_equal(text(model, batch_size=7), tokens_NxL)
        np.testing.assert_array_equal(text(model, 70)[:60], tokens_NxL)
        assert (text(model, seed=1) != tokens_NxL).any(axis=1).mean() > 0.9


def test_a_window_starts_as_asked_and_goes_on_after_the_end_of_text() -> None:
    model = sharp("gpt2")
    assert model.config.bos_token_id == model.config.eos_token_id == 0
    tokens_NxL = text(model, start=None)
    assert (tokens_NxL[:, 0] == 0).all()
    ended = (tokens_NxL[:, 1:5] == 0).any(axis=1)
    assert ended.any()
    assert (tokens_NxL[ended, 5:] != 0).any()
    model.config.bos_token_id = 50256  # GPT-2's own, which this vocabulary does not have
    uniform = np.full(VOCABULARY, 1 / VOCABULARY)
    assert agrees(text(model, 4000, 2)[:, 0], uniform)
    assert agrees(text(Lens(), 4000, 2)[:, 0], uniform)
    share_V = np.arange(VOCABULARY) / 66
    assert agrees(text(model, 4000, 2, start=share_V * 5)[:, 0], share_V)


def gradient_squared(model: nn.Module, tokens_NxL: NDArray[np.int64]) -> tuple[float, float]:
    """‖g‖² without bias, as products of two blocks' gradients, and its standard error."""
    gradients = []
    for block in torch.from_numpy(tokens_NxL).chunk(16):
        loss = module.token_losses(model, block).mean()
        found = torch.autograd.grad(loss, list(model.parameters()))
        gradients.append(torch.cat([gradient.flatten() for gradient in found]).double())
    products = [float(a @ b) for a, b in zip(gradients[::2], gradients[1::2], strict=True)]
    return float(np.mean(products)), float(stats.sem(products))


@pytest.mark.parametrize("start", [None, [1 / VOCABULARY] * VOCABULARY])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_the_loss_has_no_gradient_on_the_models_own_text(
    architecture: str, start: list[float] | None
) -> None:
    model = sharp(architecture)
    squared, error = gradient_squared(model, text(model, 3200, 8, start=start, batch_size=400))
    foreign = np.random.default_rng(0).integers(0, VOCABULARY, (3200, 8))
    other, other_error = gradient_squared(model, foreign)
    assert abs(squared) < 4 * error
    assert other > 10 * other_error
    assert abs(squared) < 0.05 * other


@pytest.mark.parametrize("name", MODELS)
def test_nothing_changes_in_the_model(name: str) -> None:
    model = MODELS[name]().train()
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    before = state(model)
    text(model)
    assert state(model) == before


def broken() -> Any:
    model = small_task.build()
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    return model


class Pooled(nn.Module):
    """Returns logits of whole windows."""

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.zeros(len(tokens), VOCABULARY)


BAD: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], str]] = {
    "one token": (small_task.build, {"length": 1}, "length = 1: must not be below 2"),
    "no window": (small_task.build, {"windows": 0}, "windows = 0: must be above 0"),
    "half a window": (small_task.build, {"windows": 2.5}, "windows = 2.5: must be a whole"),
    "half a token": (small_task.build, {"length": 2.5}, "length = 2.5: must be a whole"),
    "batch": (small_task.build, {"batch_size": 0}, "batch_size = 0: must be above 0"),
    "long": (small_task.build, {"length": 11}, "length: the model takes 9 of 11 tokens"),
    "start": (small_task.build, {"start": 12}, "start = 12: is not in the vocabulary of 12"),
    "shares": (small_task.build, {"start": [0.5, 0.5]}, "start: must be a token, or 12 prob"),
    "negative": (small_task.build, {"start": [-1.0, *[1] * 11]}, "start: must be a token"),
    "nothing": (small_task.build, {"start": [0.0] * 12}, "start: must be a token"),
    "nan": (broken, {}, "the model's logits are not finite"),
    "no sequence": (Pooled, {}, "model: must return logits (B, T, V), and returns (1, 12)"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_with_the_remedy(name: str) -> None:
    make, given, message = BAD[name]
    model = make()
    before = state(model)
    with pytest.raises(ArgumentError) as error:
        text(model, **{"windows": 4, "length": 4} | given)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert state(model) == before


def test_a_pretrained_model_has_a_gradient_on_reviews_and_none_on_its_own_text() -> None:
    from replicate.data import corpora, windows

    folder, reviews = shared("stories260k"), shared("imdb/train.jsonl.gz")
    model, tokenizer = pretrained.load(str(folder))
    foreign = windows.select(corpora.read(reviews)[:200], tokenizer, 48).tokens_NxL[:128]
    own, error = gradient_squared(model, text(model, 128, 48, batch_size=128))
    other, other_error = gradient_squared(model, foreign.astype(np.int64))
    assert abs(own) < 4 * error < 0.05 * other
    assert other > 10 * other_error
