"""Which reviews become windows, and what their last token is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from replicate.data import corpora, tensors, windows
from replicate.errors import UserError

TEXTS = [
    "one two three four five six seven eight",
    "one two",
    "one two three four and a longword that has many letters in it",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return windows.train_tokenizer(TEXTS * 20, 320)


def test_by_tokens_only_whole_windows_are_selected(tokenizer: Tokenizer) -> None:
    lengths = [len(tokenizer.encode(text).ids) for text in TEXTS]
    result = windows.select(TEXTS, tokenizer, lengths[0])
    selected = [i for i, length in enumerate(lengths) if length >= lengths[0]]
    assert result.review_N.tolist() == selected
    assert 1 not in selected
    assert result.tokens_NxL[0].tolist() == tokenizer.encode(TEXTS[0]).ids
    assert result.statistics["padded_labels"] == 0


def test_by_characters_short_windows_are_padded_and_counted(tokenizer: Tokenizer) -> None:
    """The rule of 2023 selects reviews of over 35 characters, and counts no tokens."""
    result = windows.select(TEXTS, tokenizer, 10, 35)
    selected = [i for i, text in enumerate(TEXTS) if len(text) > 35]
    assert result.review_N.tolist() == selected
    padding = tokenizer.token_to_id(windows.END_OF_TEXT)
    padded = [len(tokenizer.encode(TEXTS[i]).ids) < 10 for i in selected]
    assert (result.tokens_NxL[:, -1] == padding).tolist() == padded
    assert result.statistics["padded_labels"] == sum(padded) == 1
    assert result.statistics["kept"] + result.statistics["dropped"] == len(TEXTS)


def test_the_counts_on_the_imdb_reviews(imdb: Path, gpt2_tokenizer: Path) -> None:
    """18,802 reviews have over 700 characters; of these, 4,483 have a padded label."""
    texts, tokenizer = corpora.read(imdb), windows.read_tokenizer(gpt2_tokenizer)
    tokens = windows.select(texts, tokenizer, 200).statistics
    characters = windows.select(texts, tokenizer, 200, 700).statistics
    assert (tokens["kept"], tokens["padded_labels"]) == (14_323, 0)
    assert (characters["kept"], characters["padded_labels"]) == (18_802, 4_483)


def test_windows_come_back_from_disk(tokenizer: Tokenizer, tmp_path: Path) -> None:
    result = windows.select(TEXTS, tokenizer, 4)
    floor = np.arange(result.tokens_NxL.size, dtype=np.float32).reshape(result.tokens_NxL.shape)
    replace(result, floor_NxL=floor).save(tmp_path / "w.safetensors")
    back = windows.load(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(back.tokens_NxL, result.tokens_NxL)
    np.testing.assert_array_equal(back.floor_NxL, floor)


def test_what_is_too_short_or_damaged_is_told(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of 3 reviews is long enough"):
        windows.select(TEXTS, tokenizer, 10_000)
    tensors.save(tmp_path / "losses.safetensors", {"losses": np.zeros(3, np.float32)})
    with pytest.raises(UserError, match="holds no windows, tensor `tokens` is missing"):
        windows.load(tmp_path / "losses.safetensors")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="not a tokenizer"):
        windows.read_tokenizer(tmp_path)
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        windows.read_tokenizer(tmp_path / "nowhere")


def test_a_tokenizer_is_the_same_each_time(tokenizer: Tokenizer) -> None:
    assert windows.train_tokenizer(TEXTS * 20, 320).to_str() == tokenizer.to_str()


@pytest.mark.fault("A1")
def test_a_tokenizer_that_pads_or_cuts_changes_no_window(tokenizer: Tokenizer) -> None:
    plain = windows.consecutive(TEXTS, tokenizer, 4)
    saved = Tokenizer.from_str(tokenizer.to_str())
    saved.enable_padding(length=64)
    saved.enable_truncation(6)
    np.testing.assert_array_equal(windows.consecutive(TEXTS, saved, 4), plain)
