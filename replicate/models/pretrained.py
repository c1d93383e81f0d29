"""Loads a pretrained language model and its tokenizer, from a folder or from the hub."""

from __future__ import annotations

import re
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedModel

from replicate.data import windows
from replicate.errors import UserError
from replicate.models import hub, loading


def load(name: str, revision: str | None = None) -> tuple[PreTrainedModel, Tokenizer]:
    """Loads a model in float32, onto a GPU if there is one, and its tokenizer.

    Args:
        name: a folder, or the full name of a repository on the hub.
        revision: the full hash of the repository's commit; None for a folder.

    Returns:
        The model at w*, ready for sampling, and the tokenizer.

    Raises:
        UserError: a file is missing or damaged, the model is no causal language model, or
            `revision` is not a full hash.
    """
    if revision is not None and Path(name).is_dir():
        raise UserError(f"{name}: is a folder here, which has no revision; leave out --revision")
    if revision is None:
        folder = tokenizer = Path(name)
        if not folder.is_dir():
            raise UserError(f"{name}: no such folder; for a model of the hub, give --revision")
        hub.held(folder)
    elif not re.fullmatch("[0-9a-f]{40}", revision):
        raise UserError(f"--revision {revision}: give the commit's 40 digits; a branch can change")
    else:
        folder, tokenizer = hub.weights(name, revision), hub.file(name, revision, "tokenizer.json")
    model = loading.load(folder, "float32", loading.device("any", name))
    return model, windows.read_tokenizer(tokenizer)
