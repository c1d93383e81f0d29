"""A family of one's own needs lines in params.yaml alone: models of any architecture in the hub's
cache, one's own text and tokenizer, and one command a stage.
"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from replicate.data import traces, windows
from replicate.models import hub, module
from replicate.pipeline.cli import main
from replicate.study import records
from tests.conftest import ROOT
from tests.pipeline import small

WORDS = [(word, other) for word in ("dull", "warm") for other in ("long", "odd")]
TEXTS = [
    f"The film number {i} is {word}, and its story is {other}. " * 4
    for i in range(10)
    for word, other in WORDS
]
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 320}
SHAPE |= {"intermediate_size": 32, "max_position_embeddings": 64}
SHAPE |= {"bos_token_id": 0, "eos_token_id": 0}
ARCHITECTURES = {
    "own-neox": ("gpt_neox", SHAPE | {"tie_word_embeddings": False}),
    "own-qwen": ("qwen2", SHAPE | {"tie_word_embeddings": True, "num_key_value_heads": 1}),
}
REVISION = "0123456789abcdef" * 2 + "01234567"


def snapshot(home: Path, repository: str) -> Path:
    """Returns the folder in which huggingface_hub keeps a repository at a revision."""
    folder = home / f"models--{repository.replace('/', '--')}" / "snapshots" / REVISION
    folder.mkdir(parents=True)
    return folder


def parameters() -> dict[str, Any]:
    """Returns the small study's parameters, with all sections turned to the own family."""
    given = small.parameters()
    family = given["families"]["mini"] | {"corpus": "own", "tokenizer": "own"}
    family["curve"] = None
    family["search"] = family["search"] | {"model": "own-neox"}
    models = {
        name: {"source": "hub", "repository": f"me/{name}", "revision": REVISION}
        for name in ARCHITECTURES
    }
    return given | {
        "corpora": {"own": {"source": "local", "path": "mine.csv"}},
        "tokenizers": {"own": {"source": "local", "path": "tokenizer"}},
        "families": {"own": family | {"models": models}},
        "studies": {"own": {"full": "own", "quantised": "own", "quantisation": None}},
        "calibration": {},
        "coverage": {},
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A project in which a study of the own family ran by the command line's stages."""
    folder = tmp_path_factory.mktemp("own")
    for name, (kind, shape) in ARCHITECTURES.items():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**shape))
        model.save_pretrained(snapshot(folder / "home", f"me/{name}"))
    tokenizer = windows.train_tokenizer(TEXTS, 320)
    tokenizer.enable_truncation(max_length=4)  # as some published ones have it
    (folder / "tokenizer").mkdir()
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    with (folder / "mine.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("stars", "text"), (0, "too\nshort"), *enumerate(TEXTS)])
    (folder / "data").mkdir()
    (folder / "data" / "published.yaml").write_bytes((ROOT / "data/published.yaml").read_bytes())
    small.write(folder, parameters())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(hub.constants, "HF_HUB_CACHE", str(folder / "home"))
        patch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
        for stage in (*small.COMPUTING, "collect", "read"):
            with pytest.raises(SystemExit) as ended:
                main([stage, "own"])
            assert ended.value.code == 0, stage
        yield folder


def rows(folder: Path, name: str) -> list[Any]:
    return records.read(folder / "results" / "own" / f"{name}.json", records.COLLECTED[name])


def test_every_architecture_is_sampled_in_all_its_parameters(finished: Path) -> None:
    found = {row.model: row for row in rows(finished, "estimates") if row.estimator == "plain"}
    assert list(found) == list(ARCHITECTURES)
    for name, (kind, shape) in ARCHITECTURES.items():
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**shape))
        row = found[name]
        assert row.parameters == row.sampled_parameters == module.count(model)
        assert math.isfinite(row.llc)


def test_random_weights_know_nothing_and_every_experiment_reached_both(finished: Path) -> None:
    for row in rows(finished, "baselines"):
        assert row.loss == pytest.approx(math.log(320), rel=0.1)
    assert [row.model for row in rows(finished, "original")] == list(ARCHITECTURES)
    assert [(row.model, row.factor) for row in rows(finished, "transfer")] == [
        (model, factor) for model in ARCHITECTURES for factor in (1.0, 3.0)
    ]


def test_the_whole_text_is_read_whatever_the_tokenizer_would_cut(finished: Path) -> None:
    (row,) = rows(finished, "windows")
    assert (row.kept, row.dropped) == (len(TEXTS), 1)
    assert row.tokens > 4 * row.reviews


def test_a_result_names_repository_and_commit(finished: Path) -> None:
    record = next(row for row in rows(finished, "provenance") if row.model == "own-neox")
    assert (record.repository, record.revision) == ("me/own-neox", REVISION)
    trace = traces.load(finished / "data" / "own" / "traces" / "own-neox")
    assert trace.attrs["task"]["windows"] == record.windows


def test_a_study_of_one_family_has_verdicts_and_figures_of_that_family_alone(
    finished: Path,
) -> None:
    claims = json.loads((finished / "results" / "own" / "claims.json").read_text())
    verdicts = {row["id"]: row["verdict"] for row in claims}
    assert {verdicts[claim] for claim in ("C9", "C11")} == {"not run"}
    assert "not run" not in {verdicts[claim] for claim in ("A1", "C1", "C2", "C6", "C8")}
    figures = (finished / "paper" / "generated" / "own" / "figures").glob("*.svg")
    assert {f"diagnostics-{name}" for name in ARCHITECTURES} <= {path.stem for path in figures}
