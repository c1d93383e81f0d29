"""Reviews → token windows of one family."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from replicate.data import corpora, grammar, windows
from replicate.data.json_io import write_json
from replicate.models import hub
from replicate.pipeline.config import (
    GeneratedCorpus,
    HubCorpus,
    HubTokenizer,
    Params,
    TrainedTokenizer,
)
from replicate.progress import progress
from replicate.seeds import derive


def run(params: Params, family: str, out: Path) -> None:
    settings = params.families[family]
    corpus, tokens = params.corpora[settings.corpus], params.tokenizers[settings.tokenizer]
    written = None
    if isinstance(corpus, GeneratedCorpus):
        written = []
        with progress(f"extract {family}: writing reviews", corpus.reviews) as advance:
            for choices in grammar.reviews(
                derive(params.seed, "corpus", settings.corpus), corpus.reviews
            ):
                written.append(choices)
                advance()
        texts = [grammar.text(choices) for choices in written]
    elif isinstance(corpus, HubCorpus):
        texts = corpora.read(
            hub.file(corpus.repository, corpus.revision, corpus.file, repo_type="dataset")
        )
    else:
        texts = corpora.read(Path(corpus.path))

    if isinstance(tokens, TrainedTokenizer):
        tokenizer = windows.train_tokenizer(texts, tokens.vocabulary)
    elif isinstance(tokens, HubTokenizer):
        tokenizer = windows.read_tokenizer(
            hub.file(tokens.repository, tokens.revision, "tokenizer.json")
        )
    else:
        tokenizer = windows.read_tokenizer(Path(tokens.path))
    # a published tokenizer may cut what it reads, or pad it, to the length of its own training
    tokenizer.no_truncation()
    tokenizer.no_padding()

    original = windows.select(
        texts, tokenizer, settings.length, settings.original.characters
    )  # with the study's padded labels
    result = (
        original
        if settings.rule == "characters"
        else windows.select(texts, tokenizer, settings.length)
    )
    if (
        written is not None
        and settings.rule == "tokens"
        and grammar.EXACT[0] <= settings.length <= grammar.EXACT[1]
    ):
        floor = grammar.Floor(lambda text: tokenizer.encode(text).ids)
        surprisals = (floor.surprisals(written[i])[: settings.length] for i in result.review_N)
        flat = np.fromiter(
            chain.from_iterable(surprisals), np.float32, count=result.tokens_NxL.size
        )
        result = replace(result, floor_NxL=flat.reshape(result.tokens_NxL.shape))

    out.mkdir(parents=True)
    result.save(out / "windows.safetensors")
    original.save(out / "original.safetensors")
    tokenizer.save(str(out / "tokenizer.json"))
    write_json(out / "statistics.json", result.statistics)
    print(
        f"{family}: kept {result.statistics['kept']} of {result.statistics['reviews']} reviews ({settings.rule}, {settings.length} tokens)"
    )
