"""A pretrained language model and its tokenizer: a folder here, or a repository at a commit."""

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
    """Returns the folder of a model and where its tokenizer is; downloads what is not here.

    Args:
        name: a folder, or the full name of a repository on the hub.
        revision: the commit of the repository; None for a folder.

    Raises:
        UserError: a file is missing, the folder holds no model, or there is no commit.
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

    Raises:
        UserError: as `find`; or the weights or the tokenizer are damaged.
    """
    folder, tokenizer = find(name, revision)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return loading.load(folder, "float32", device), windows.read_tokenizer(tokenizer)
