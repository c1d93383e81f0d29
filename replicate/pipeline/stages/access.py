"""Whether the hub gives this machine what params.yaml names there: reachable, licensed, or in the
cache already.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import torch
from huggingface_hub import constants, get_token
from transformers import AutoModelForCausalLM

from replicate.errors import UserError
from replicate.models import hub
from replicate.pipeline.config import HubCorpus, HubModel, HubTokenizer, Params
from replicate.pipeline.planning import configurations
from replicate.pipeline.planning.footprint import shallow
from replicate.pipeline.stages.checks import Check, refused, room

PATIENCE, LONGEST = 4.0, 6.0  # seconds that the hub has for an answer, and for all of them
File = tuple[str, str, str, str]  # repository, revision, name, kind of repository


def named(params: Params) -> dict[File, set[str]]:
    """A file of each repository of params.yaml, and the studies that need it."""
    found: dict[File, set[str]] = {}
    for study, settings in params.studies.items():
        for family in settings.families:
            corpus, tokenizer = (
                params.corpora[params.families[family].corpus],
                params.tokenizers[params.families[family].tokenizer],
            )
            models = (params.models[name] for name in params.models_of(family))
            keys = [
                (model.repository, model.revision, "config.json", "model")
                for model in models
                if isinstance(model, HubModel)
            ]
            if isinstance(corpus, HubCorpus):
                keys.append((corpus.repository, corpus.revision, corpus.file, "dataset"))
            if isinstance(tokenizer, HubTokenizer):
                keys.append((tokenizer.repository, tokenizer.revision, "config.json", "model"))
            for key in keys:
                found.setdefault(key, set()).add(study)
    return found


def size(repository: str, revision: str) -> float:
    """Bytes of a model's weights on the hub, from its configuration, as all blocks are alike; 0
    where that is not known.
    """
    config = configurations.of_hub(repository, revision)
    if config is None:
        return 0.0
    with torch.device("meta"):  # shapes alone
        one, two = (
            AutoModelForCausalLM.from_config(shallow(config, blocks)).num_parameters()
            for blocks in (1, 2)
        )
    return float(
        one + (two - one) * (config.get_text_config().num_hidden_layers - 1)
    ) * configurations.bytes_of_a_weight(config)


def access(params: Params) -> Iterator[Check]:
    """Whether each repository answers; all are asked at once, and the slow are not waited for."""
    needed = named(params)
    if not needed:
        return
    everyone = sorted(set().union(*needed.values()))
    cached = {key for key in needed if key[3] == "model" and hub.cached(*key[:2])}
    models = {key for key in needed if key[3] == "model"}
    yield room(
        "hub cache",
        Path(constants.HF_HUB_CACHE),
        everyone,
        sum(size(*key[:2]) for key in models - cached),
    )
    yield Check("weights", f"{len(cached)} of {len(models)} repositories in the cache")
    if constants.HF_HUB_OFFLINE:
        lacking = sorted(set().union(*(needed[key] for key in models - cached)))
        remedy = (
            "unset it, or copy the cache of a machine that has them to HF_HOME" if lacking else ""
        )
        yield Check("hub", "not asked, as HF_HUB_OFFLINE is set", remedy, tuple(lacking))
        return
    yield Check(
        "token",
        "one is given" if get_token() else "none is given, which only gated repositories need",
    )
    answers: dict[File, UserError | None] = {}

    def ask(key: File) -> None:
        try:
            hub.ask(*key, patience=PATIENCE)
        except UserError as error:
            answers[key] = error
        else:
            answers[key] = None

    threads = [threading.Thread(target=ask, args=(key,), daemon=True) for key in needed]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + LONGEST
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    yield from answered(needed, dict(answers), cached)


def answered(
    needed: Mapping[File, set[str]],
    answers: Mapping[File, UserError | None],
    cached: Collection[File],
) -> Iterator[Check]:
    """A line for the hub, and one for each repository that it refuses and the cache has not."""
    silent = [
        key
        for key in needed
        if key not in answers or isinstance(answers[key], hub.UnreachableError)
    ]
    if silent:
        studies = sorted(set().union(*(needed[key] for key in silent if key not in cached)))
        remedy = (
            "connect, set HF_ENDPOINT or HTTPS_PROXY, or copy the cache of a machine that has them to HF_HOME"
            if studies
            else ""
        )
        yield Check(
            "hub",
            f"cannot be reached for {len(silent)} of {len(needed)} repositories",
            remedy,
            tuple(studies),
        )
    else:
        yield Check("hub", f"answers for {len(needed)} repositories")
    for key, error in answers.items():
        if error is not None and key not in silent and key not in cached:
            yield refused("hub", error, sorted(needed[key]))
