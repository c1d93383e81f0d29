"""From reviews to token windows: L − 1 tokens of context, and the last token as the label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.implementations.byte_level_bpe import ByteLevelBPETokenizer

from replicate.data import tensors as arrays
from replicate.errors import UserError

END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class Windows:
    """tokens_NxL: token ids. review_N: which review each window is from. padded_N: whether the
    label is padding. floor_NxL: −ln p (nats) of each token under the process that wrote the text,
    where that is known. `statistics`: what was kept and what was dropped.
    """

    tokens_NxL: NDArray[np.int32]
    review_N: NDArray[np.int32]
    padded_N: NDArray[np.bool_]
    floor_NxL: NDArray[np.float32] | None
    statistics: dict[str, int]

    def save(self, path: Path) -> None:
        found = {"tokens": self.tokens_NxL, "review": self.review_N, "padded": self.padded_N}
        arrays.save(path, found if self.floor_NxL is None else found | {"floor": self.floor_NxL})


def load(path: Path) -> Windows:
    """Windows as `save` wrote them, without statistics.

    Raises:
        UserError: the file is missing, damaged, or of another kind.
    """
    found = arrays.load(path)
    if not {"tokens", "review", "padded"} <= found.keys():
        raise UserError(f"{path}: holds no windows; delete it and run dvc repro again")
    return Windows(found["tokens"], found["review"], found["padded"], found.get("floor"), {})


def select(
    texts: Sequence[str], tokenizer: Tokenizer, length: int, characters: int | None = None
) -> Windows:
    """The windows of those reviews that have at least `length` tokens.

    With `characters`, by the original study's rule: those of more characters than that, padded with
    the end-of-text token where they have too few tokens, so that a label can be padding.

    Raises:
        UserError: no review is kept.
    """
    ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]
    if characters is None:
        kept = [i for i, tokens in enumerate(ids) if len(tokens) >= length]
    else:
        kept = [i for i, text in enumerate(texts) if len(text) > characters]
    if not kept:
        raise UserError(
            f"none of {len(ids)} reviews is long enough for windows of {length} tokens; lower the family's length"
        )
    padding = tokenizer.token_to_id(END_OF_TEXT)
    if padding is None:
        padding = tokenizer.token_to_id("</s>") or 0
    tokens_NxL = np.full((len(kept), length), padding, np.int32)
    for row, i in enumerate(kept):
        tokens_NxL[row, : len(ids[i])] = ids[i][:length]
    padded_N = np.array([len(ids[i]) < length for i in kept])
    statistics = {
        "reviews": len(ids),
        "kept": len(kept),
        "dropped": len(ids) - len(kept),
        "padded_labels": int(padded_N.sum()),
        "tokens": sum(map(len, ids)),
        "vocabulary": tokenizer.get_vocab_size(),
        "length": length,
    }
    return Windows(tokens_NxL, np.array(kept, np.int32), padded_N, None, statistics)


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE (Sennrich et al. 2016) of `vocabulary` tokens, the first of them the end of
    text.
    """
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        iter(texts), vocab_size=vocabulary, show_progress=False, special_tokens=[END_OF_TEXT]
    )
    return Tokenizer.from_str(tokenizer.to_str())


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in `tokenizer.json`, or in a folder that has it, or `vocab.json` and
    `merges.txt`.

    Raises:
        UserError: there is none, or it is damaged.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        if file.is_file():
            found = Tokenizer.from_file(str(file))
            if max(found.get_vocab().values(), default=0) >= 2**31:
                raise ValueError("a token's number does not fit 32 bits")
            return found
        if (path / "vocab.json").is_file() and (path / "merges.txt").is_file():
            tokenizer = ByteLevelBPETokenizer.from_file(
                str(path / "vocab.json"), str(path / "merges.txt")
            )
            tokenizer.add_special_tokens([END_OF_TEXT])
            return Tokenizer.from_str(tokenizer.to_str())
    except Exception as error:  # the Rust library raises bare Exception
        raise UserError(f"{path}: not a tokenizer ({error}); replace it by a whole one") from None
    raise UserError(
        f"{path}: no tokenizer.json, nor vocab.json and merges.txt; put them there or change the tokenizer's path"
    )
