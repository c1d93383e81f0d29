"""Makes windows of L tokens: the first L − 1 are context, and the last is the label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.implementations.byte_level_bpe import ByteLevelBPETokenizer

from replicate.data import lfs, tensors
from replicate.data.json_io import AGAIN
from replicate.errors import UserError

END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class Windows:
    """Holds the windows of one family.

    Attributes:
        tokens_NxL: token ids.
        review_N: the index of the review that each window is from.
        padded_N: whether the label of each window is padding.
        floor_NxL: −ln p (nats) of each token under the process that wrote the text; None if that is
            unknown.
        statistics: counts: all reviews, those kept and dropped, padded labels, and the tokens of
            all reviews; also the sizes of the vocabulary and of a window.
    """

    tokens_NxL: NDArray[np.int32]
    review_N: NDArray[np.int32]
    padded_N: NDArray[np.bool_]
    floor_NxL: NDArray[np.float32] | None
    statistics: dict[str, int]

    def save(self, path: Path) -> None:
        """Writes all attributes except `statistics`."""
        found = {"tokens": self.tokens_NxL, "review": self.review_N, "padded": self.padded_N}
        tensors.save(path, found if self.floor_NxL is None else found | {"floor": self.floor_NxL})


def load(path: Path) -> Windows:
    """Reads the windows that `Windows.save` wrote; `statistics` is empty.

    Raises:
        UserError: the file is missing or damaged, or contains no windows.
    """
    found = tensors.load(path)
    try:
        return Windows(found["tokens"], found["review"], found["padded"], found.get("floor"), {})
    except KeyError as name:
        cause = f"holds no windows, tensor `{name.args[0]}` is missing"
        raise UserError(f"{path}: {cause}; {AGAIN}") from None


def select(
    texts: Sequence[str], tokenizer: Tokenizer, length: int, characters: int | None = None
) -> Windows:
    """Makes a window of the first L tokens of each review that is long enough.

    Args:
        texts: the reviews.
        tokenizer: the tokenizer of the family.
        length: L, the number of tokens in a window, including the label.
        characters: if None, a review is long enough with L tokens. If given, the rule of the 2023
            study applies: a review is long enough if it has more characters than this. If such a
            review has fewer than L tokens, padding is appended, so that its label is padding. The
            padding is the end-of-text token, or token 0 if the tokenizer has none.

    Returns:
        The windows, in the order of the reviews; `floor_NxL` is None.

    Raises:
        UserError: no review is long enough.
    """
    ids = _encoded(texts, tokenizer)
    if characters is None:
        selected = [i for i, tokens in enumerate(ids) if len(tokens) >= length]
    else:
        selected = [i for i, text in enumerate(texts) if len(text) > characters]
    if not selected:
        found = f"none of {len(ids)} reviews is long enough for windows of {length} tokens"
        remedy = "lower the family's length"
        if characters is not None:
            found = f"none of {len(ids)} reviews has more than {characters} characters"
            remedy = "lower original.characters of the family, or write original: null"
        raise UserError(f"{found}; {remedy}")
    padding = tokenizer.token_to_id(END_OF_TEXT)
    if padding is None:
        padding = tokenizer.token_to_id("</s>") or 0
    tokens_NxL = np.full((len(selected), length), padding, np.int32)
    for row, i in enumerate(selected):
        tokens_NxL[row, : len(ids[i])] = ids[i][:length]
    padded_N = np.array([len(ids[i]) < length for i in selected])
    statistics = {
        "reviews": len(ids),
        "kept": len(selected),
        "dropped": len(ids) - len(selected),
        "padded_labels": int(padded_N.sum()),
        "tokens": sum(map(len, ids)),
        "vocabulary": tokenizer.get_vocab_size(),
        "length": length,
    }
    return Windows(tokens_NxL, np.array(selected, np.int32), padded_N, None, statistics)


def _encoded(texts: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    """Returns the tokens of each text; what a saved tokenizer pads or cuts would be no text."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]


def consecutive(texts: Sequence[str], tokenizer: Tokenizer, length: int) -> NDArray[np.int32]:
    """Cuts each text into consecutive windows and drops the tokens that are left at its end.

    Args:
        texts: the texts.
        tokenizer: the tokenizer of the model.
        length: L, the number of tokens in a window.

    Returns:
        The windows of all texts, (N, L).

    Raises:
        UserError: no text has L tokens.
    """
    ids = _encoded(texts, tokenizer)
    rows = [
        tokens[start : start + length]
        for tokens in ids
        for start in range(0, len(tokens) - length + 1, length)
    ]
    if not rows:
        longest = max(map(len, ids), default=0)
        raise UserError(f"no text has {length} tokens, the longest has {longest}; lower the length")
    return np.array(rows, np.int32)


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """Trains a byte-level BPE tokenizer (Sennrich et al. 2016); token 0 is the end of text.

    Args:
        texts: the texts on which it is trained.
        vocabulary: the largest number of tokens in the vocabulary.
    """
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        iter(texts), vocab_size=vocabulary, show_progress=False, special_tokens=[END_OF_TEXT]
    )
    return Tokenizer.from_str(tokenizer.to_str())


def read_tokenizer(path: Path) -> Tokenizer:
    """Reads a tokenizer.

    Args:
        path: a file such as `tokenizer.json`, or a folder with either `tokenizer.json` or both
            `vocab.json` and `merges.txt`.

    Raises:
        UserError: the tokenizer is missing or damaged, or a pointer of Git LFS.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    pair = path / "vocab.json", path / "merges.txt"
    for each in (file, *pair):
        lfs.check(each)
    try:
        if file.is_file():
            return Tokenizer.from_file(str(file))
        if all(part.is_file() for part in pair):
            tokenizer = ByteLevelBPETokenizer.from_file(*map(str, pair))
            tokenizer.add_special_tokens([END_OF_TEXT])
            return Tokenizer.from_str(tokenizer.to_str())
    except Exception as error:  # the Rust library raises bare Exception
        raise UserError(f"{path}: not a tokenizer ({error}); replace it by a whole one") from None
    missing = "no tokenizer.json, nor vocab.json and merges.txt"
    raise UserError(f"{path}: {missing}; put them there or change the tokenizer's path")
