"""Loads a pretrained language model and its tokenizer, from a folder or from the hub."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from replicate.data import windows
from replicate.errors import UserError
from replicate.models import hub, loading

TOKENIZERS = ("tokenizer.json", "vocab.json", "merges.txt")


def find(name: str, revision: str | None) -> tuple[Path, Path]:
    """Finds a model and its tokenizer, and downloads the files that the cache lacks.

    Args:
        name: a folder, or the full name of a repository on the hub.
        revision: the full hash of the repository's commit; None for a folder.

    Returns:
        The folder of the model, and the path of its tokenizer (a file or a folder).

    Raises:
        UserError: a file is missing, or `revision` is not a full hash.
    """
    folder = Path(name)
    if revision is None:
        if not folder.is_dir():
            raise UserError(f"{name}: no such folder; for a model of the hub, give --revision")
        return hub.held(folder), folder
    if not re.fullmatch("[0-9a-f]{40}", revision):
        raise UserError(f"--revision {revision}: give the commit's 40 digits; a branch can change")
    return hub.weights(name, revision), hub.file(name, revision, TOKENIZERS[0])


def load(name: str, revision: str | None = None) -> tuple[PreTrainedModel, Tokenizer]:
    """Loads a model in float32, onto a GPU if there is one, and its tokenizer.

    Args:
        name: as for `find`.
        revision: as for `find`.

    Raises:
        UserError: `find` fails, or the weights or the tokenizer are damaged.
    """
    folder, tokenizer = find(name, revision)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return loading.load(folder, "float32", device), windows.read_tokenizer(tokenizer)
