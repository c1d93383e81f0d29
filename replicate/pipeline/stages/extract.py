"""Stage `extract`: makes the token windows of one family from reviews."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from replicate.data import corpora, grammar, json_io, windows
from replicate.models import hub
from replicate.pipeline.config import Config
from replicate.pipeline.config.sources import (
    HubFile,
    LocalTexts,
    OnDisk,
    OnHub,
    SampledCorpus,
    TrainedTokenizer,
)
from replicate.pipeline.work import plans
from replicate.progress import progress
from replicate.seeds import derive


def run(config: Config, family: str) -> None:
    """Writes the family's windows, its tokenizer, and counts of reviews and tokens.

    If the family has `original`, the windows of the protocol of 2023 are written too. If its models
    sample their own text, no windows are written: stage `baseline` samples them.

    Raises:
        UserError: the texts or the tokenizer cannot be read, or no review is long enough.
    """
    given, sampled = config.families[family], config.sampled(family)
    if sampled is not None:
        N, tokenizer = sampled.windows, find_tokenizer(config.tokenizers[given.tokenizer], [])
        counts = {"reviews": N, "kept": N, "dropped": 0, "padded_labels": 0}
        counts |= {"tokens": N * given.length, "length": given.length}
        counts["vocabulary"] = tokenizer.get_vocab_size()
        save(config.paths.windows(family), tokenizer, counts)
        print(f"{family}: stage `baseline` will sample {N} windows from each model")
        return
    written, texts = read_texts(config, given.corpus)
    tokenizer = find_tokenizer(config.tokenizers[given.tokenizer], texts)
    found = padded = None
    if given.original is not None:
        found = padded = windows.select(texts, tokenizer, given.length, given.original.characters)
    if given.rule == "tokens" or found is None:
        found = windows.select(texts, tokenizer, given.length)
        if written and grammar.EXACT[0] <= given.length <= grammar.EXACT[1]:
            floor = grammar.Floor(lambda text: tokenizer.encode(text).ids)
            each = (floor.surprisals(written[i])[: given.length] for i in found.review_N)
            flat = np.fromiter(chain.from_iterable(each), np.float32, count=found.tokens_NxL.size)
            found = replace(found, floor_NxL=flat.reshape(found.tokens_NxL.shape))
    out = config.paths.windows(family)
    save(out, tokenizer, found.statistics)
    found.save(out / plans.WINDOWS)
    if padded is not None:
        padded.save(out / plans.PADDED)
    print(
        f"{family}: kept {found.statistics['kept']} of {found.statistics['reviews']} reviews"
        f" ({given.rule}, {given.length} tokens)"
    )


def save(out: Path, tokenizer: Tokenizer, statistics: Mapping[str, int]) -> None:
    """Writes a new folder with a family's tokenizer and its counts."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    tokenizer.save(str(out / "tokenizer.json"))
    json_io.write_json(out / "statistics.json", statistics)


def read_texts(config: Config, name: str) -> tuple[list[list[grammar.Choice]], list[str]]:
    """Reads or generates the reviews of a corpus.

    Returns:
        The grammar's choices for each review (an empty list if the corpus is not generated), and
        the texts.

    Raises:
        UserError: the texts cannot be read or fetched.
    """
    corpus = config.corpora[name]
    assert not isinstance(corpus, SampledCorpus), "text that models sample"
    if isinstance(corpus, LocalTexts):
        return [], corpora.read(Path(corpus.path), corpus.column)
    if isinstance(corpus, HubFile):
        file = hub.file(corpus.repository, corpus.revision, corpus.file, repo_type="dataset")
        return [], corpora.read(file, corpus.column)
    written = []
    with progress(f"extract: writing reviews of {name}", corpus.reviews) as advance:
        for choices in grammar.reviews(derive(config.seed, "corpus", name), corpus.reviews):
            written.append(choices)
            advance()
    return written, [grammar.text(choices) for choices in written]


def find_tokenizer(given: TrainedTokenizer | OnHub | OnDisk, texts: list[str]) -> Tokenizer:
    """Trains a tokenizer on the texts, or reads one, as params.yaml says.

    A published tokenizer may truncate or pad texts to a fixed length. This is switched off here.

    Raises:
        UserError: the tokenizer cannot be read or fetched.
    """
    if isinstance(given, TrainedTokenizer):
        found = windows.train_tokenizer(texts, given.vocabulary)
    elif isinstance(given, OnHub):
        file = hub.file(given.repository, given.revision, "tokenizer.json")
        found = windows.read_tokenizer(file)
    else:
        found = windows.read_tokenizer(Path(given.path))
    found.no_truncation()
    found.no_padding()
    return found
