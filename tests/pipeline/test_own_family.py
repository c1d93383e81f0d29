"""A family of one's own: what docs/own-family.md says to add to params.yaml, and no more, runs the
whole way on any architecture.
"""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import yaml
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides
from pyarrow import parquet
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from replicate.data import windows
from replicate.errors import UserError
from replicate.models import baseline as minimum
from replicate.models import loading as models
from replicate.models.task import Subject
from replicate.pipeline.config import load
from replicate.sampling import Space
from tests.conftest import ROOT, inherited

PARAMS = (ROOT / "params.yaml").read_text(encoding="utf-8")
EXAMPLE = (
    (ROOT / "docs" / "own-family.md")
    .read_text(encoding="utf-8")
    .split("```yaml\n")[1]
    .split("```")[0]
)
WORDS = [(word, other) for word in ("dull", "warm") for other in ("long", "odd")]
TEXTS = [
    f"The film number {i} is {word}, and its story is {other}. " * 4
    for i in range(10)
    for word, other in WORDS
]

SHAPE = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 320,
}
SHAPE |= {"max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0}
GPT2 = {
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "vocab_size": 320,
    "n_positions": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
MODELS: dict[str, dict[str, Any]] = {  # of the example → the architecture that stands in its place
    "pythia-14m": SHAPE | {"model_type": "gpt_neox", "tie_word_embeddings": False},
    "pythia-31m": SHAPE | {"model_type": "llama", "tie_word_embeddings": False},
    "pythia-70m": GPT2 | {"model_type": "gpt2", "tie_word_embeddings": True},
    "pythia-160m": SHAPE
    | {"model_type": "qwen2", "tie_word_embeddings": True, "num_key_value_heads": 1},
}
TINY = """
    machine.processes=1 baseline.gradient_examples=16 claims.bootstrap=100
    families.pythia.length=16 families.pythia.products=float32
    families.pythia.sampling.batch_size=4 families.pythia.sampling.groups=2 families.pythia.sampling.chains=2
    families.pythia.sampling.burn_in=2 families.pythia.sampling.draws=6
    families.pythia.search.chains=2 families.pythia.search.burn_in=2 families.pythia.search.draws=4
    families.pythia.search.sgld.lr=[1.0e-5] families.pythia.search.tpe.trials=2 families.pythia.search.tpe.batch=2
    families.pythia.transfer.groups=2 families.pythia.transfer.burn_in=2 families.pythia.transfer.draws=4
    families.pythia.original.groups=2 families.pythia.original.chains=2 families.pythia.original.burn_in=2
    families.pythia.original.draws=4 families.pythia.original.characters=40
    ~models.pythia-410m ~models.pythia-1400m
""".split()


def added(example: str) -> str:
    """params.yaml with each section of the example at the end of its own."""
    text = PARAMS
    for part in re.split(r"^(?=\w)", example, flags=re.MULTILINE)[1:]:
        heading, lines = part.split("\n", 1)
        before, after = text.split(f"\n{heading}", 1)
        inside, *rest = re.split(r"^(?=\w)", after, maxsplit=1, flags=re.MULTILINE)
        text = f"{before}\n{heading}{inside.rstrip()}\n{lines.rstrip()}\n\n{''.join(rest)}"
    return text


def written(folder: Path, text: str) -> Path:
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    return folder / "params.yaml"


def build(name: str) -> PreTrainedModel:
    """Random weights, the same each time."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        CONFIG_MAPPING[MODELS[name]["model_type"]](**MODELS[name])
    )


def snapshot(home: Path, kind: str, source: dict[str, str]) -> Path:
    """The folder in which huggingface_hub looks for a repository at a revision."""
    folder = (
        home
        / "hub"
        / f"{kind}s--{source['repository'].replace('/', '--')}"
        / "snapshots"
        / source["revision"]
    )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HF_HOME with a small model in the place of each of Pythia's, a tokenizer, and a few reviews
    in the place of IMDB's.
    """
    home, params = tmp_path_factory.mktemp("home"), yaml.safe_load(added(EXAMPLE))
    for name in MODELS:
        build(name).save_pretrained(snapshot(home, "model", params["models"][name]))
    tokenizer = windows.train_tokenizer(TEXTS, 320)
    tokenizer.enable_truncation(max_length=4)  # as some published ones have it
    tokenizer.save(str(snapshot(home, "model", params["tokenizers"]["pythia"]) / "tokenizer.json"))
    imdb = snapshot(home, "dataset", params["corpora"]["imdb"]) / params["corpora"]["imdb"]["file"]
    imdb.parent.mkdir()
    parquet.write_table(pa.table({"text": TEXTS}), imdb)
    return home


def run(project: Path, home: Path, *command: str) -> None:
    environment = inherited()
    environment |= {
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    environment |= {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
    }
    done = subprocess.run(
        command,
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def at_once(project: Path, home: Path, *commands: str) -> None:
    """Several `python -m replicate …` in one process, which imports torch once."""
    code = "import sys; from replicate.__main__ import main; [main(line.split()[3:], standalone_mode=False) for line in sys.argv[1:]]"
    run(project, home, sys.executable, "-c", code, *commands)


@pytest.fixture(scope="module")
def finished(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project where the example's study ran, with tiny settings: the commands of its compute
    stages, then its reading stages by DVC.
    """
    project = tmp_path_factory.mktemp("project")
    for name in ("dvc.yaml", ".dvc/config", "data/published.yaml"):
        (project / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, project / name)
    (project / "replicate").symlink_to(ROOT / "replicate")
    apply_overrides(str(written(project, added(EXAMPLE))), [*TINY])
    run(project, home, "git", "init", "-q")
    stages = {
        getattr(stage, "name", ""): str(stage.cmd) for stage in Repo(str(project)).index.stages
    }
    stages = {
        name: command
        for name, command in stages.items()
        if name.split("@")[-1] in ("pythia", *MODELS)
    }
    reading = [
        name for name in stages if name.startswith(("collect", "claims", "figures", "tables"))
    ]
    assert len(stages) - len(reading) == 5 + 3 * len(MODELS)
    at_once(project, home, *(command for name, command in stages.items() if name not in reading))
    run(project, home, "dvc", "repro", "--single-item", "check", *reading)
    return project


def result(project: Path, name: str) -> list[dict[str, Any]]:
    return json.loads((project / "results" / "pythia" / f"{name}.json").read_text(encoding="utf-8"))


def test_every_architecture_is_sampled_in_all_its_parameters(finished: Path) -> None:
    rows = result(finished, "estimates")
    assert {row["model"] for row in rows} == set(MODELS)
    for row in rows:
        assert row["status"] == "run"
        assert row["llc"] is None or math.isfinite(row["llc"])
        assert (
            row["parameters"] == row["sampled_parameters"] == models.count(build(row["model"]))
        ), row["model"]
    assert any(row["llc"] for row in rows)
    assert len({row["parameters"] for row in rows}) == len(MODELS)


def test_the_plans_of_a_new_family_reach_all_its_models(finished: Path) -> None:
    for name, factors in (("transfer", 3), ("original", 1)):
        rows = result(finished, name)
        assert [row["model"] for row in rows] == [model for model in MODELS for _ in range(factors)]
        assert {row["status"] for row in rows} == {"run"}


def test_what_a_tokenizer_would_cut_is_read_whole(finished: Path) -> None:
    (row,) = result(finished, "windows")
    assert (row["kept"], row["dropped"]) == (len(TEXTS), 0)
    assert row["tokens"] > 4 * row["reviews"]


def test_a_study_of_one_family_has_verdicts_and_figures_of_that_family_alone(
    finished: Path,
) -> None:
    verdicts = {row["id"]: row["verdict"] for row in result(finished, "claims")}
    assert {verdicts[claim] for claim in ("C9", "C11")} == {"not run"}
    assert "not run" not in {
        verdicts[claim] for claim in ("A1", "A2", "C1", "C2", "C6", "C7", "C8")
    }
    generated = finished / "paper" / "generated" / "pythia"
    drawn = {
        "llc",
        "original",
        "quantisation",
        "transfer",
        "search-pythia",
        *(f"diagnostics-{model}" for model in MODELS),
    }
    assert {path.stem for path in (generated / "figures").glob("*.png")} == drawn
    values = (generated / "tables" / "values.tex").read_text(encoding="utf-8")
    assert all(rf"\setresult{{pythia/{model}/llc}}" in values for model in MODELS)


def test_a_csv_of_ones_own_serves_such_a_family(home: Path, tmp_path: Path) -> None:
    with (tmp_path / "mine.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [
                ("stars", "text"),
                *((i, text) for i, text in enumerate(TEXTS[:30])),
                (0, "too\nshort"),
            ]
        )
    overrides = [*TINY, "families.pythia.corpus=own", "corpora.own.path=mine.csv"]
    apply_overrides(str(written(tmp_path, added(EXAMPLE))), overrides)
    stages = (
        "extract pythia windows",
        "pretrain pythia-31m windows weights log",
        "baseline pythia-31m windows weights baseline",
    )
    at_once(tmp_path, home, *(f"python -m replicate {stage}" for stage in stages))
    statistics = json.loads((tmp_path / "windows" / "statistics.json").read_text())
    assert (statistics["kept"], statistics["dropped"]) == (30, 1)
    report = json.loads((tmp_path / "baseline" / "baseline.json").read_text())
    assert report["examples"] == 30
    assert report["loss"] == pytest.approx(math.log(320), rel=0.1)  # random weights know nothing


def test_what_is_not_written_is_that_of_the_family_taken_over(tmp_path: Path) -> None:
    params = load(written(tmp_path, added(EXAMPLE)))
    assert {name: family for name, family in params.families.items() if name != "pythia"} == load(
        ROOT / "params.yaml"
    ).families
    own, other = params.families["pythia"], params.families["gpt2"]
    assert (own.sampling, own.corpus, own.length, own.search.chains) == (
        other.sampling,
        other.corpus,
        other.length,
        other.search.chains,
    )
    assert own.transfer.models == own.original.models == tuple(params.models_of("pythia"))
    assert len(own.transfer.models) == 6
    assert params.studies["pythia"].families == ("pythia",)


@pytest.mark.parametrize("family", ["pythia", "gpt2", "mini"])
@pytest.mark.parametrize(
    ("key", "value"),
    [("sampling.nbeta", 10.0), ("search.sgld.lr", (1e-7,)), ("transfer.factors", (0.1, 1.0))],
)
def test_an_experiment_varies_the_family_that_it_names_and_no_other(
    tmp_path: Path, family: str, key: str, value: object
) -> None:
    path = written(tmp_path, added(EXAMPLE))
    before = load(path).model_dump()
    apply_overrides(
        str(path), [f"families.{family}.{key}={list(value) if isinstance(value, tuple) else value}"]
    )
    *blocks, last = key.split(".")
    changed = before["families"][family]
    for block in blocks:
        changed = changed[block]
    changed[last] = value
    assert load(path).model_dump() == before


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "{family: pythia,",
            "{family: pithia,",
            "models.pythia-14m.family: 'pithia' is not one of families",
        ),
        (
            "    <<: *language-models #",
            "    <<: *language-models\n    <<: *language-models #",
            "the key '<<' stands twice; remove one",
        ),
        ("*language-models #", "*languages #", "found undefined alias 'languages'"),
        (
            "    sampling: {<<: *language-models-sampling}\n",
            "",
            "families.pythia.sampling: is one and the same block as families.gpt2.sampling",
        ),
        (
            "{<<: *language-models-transfer}",
            "*language-models-transfer",
            "families.pythia.transfer: is one and the same block as",
        ),
        (
            "      sgnht: null\n",
            "",
            "families.pythia.search.sgnht: is one and the same block as families.gpt2.search.sgnht",
        ),
        (
            "      model: pythia-14m\n",
            "",
            "families.pythia.search.model: 'gpt2' is of another family",
        ),
        (
            "models-original}",
            "models-original, models: []}",
            "families.pythia.original.models: none; name at least one, or write all",
        ),
        ("models-original}", "models-original, models: al}", "families.pythia.original.models:"),
        ("pythia-1400m:", "pythia-1.4b:", "models.pythia-1.4b"),
        (
            "quantised: pythia",
            "quantised: null",
            "studies: `quantised` is null; where a study has no quantised family, write the name of `full`",
        ),
        (
            "quantised: pythia",
            "quantised: none",
            "studies.pythia.quantised: 'none' is not one of families",
        ),
    ],
)
def test_a_mistake_in_a_new_family_is_one_line(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    assert old in EXAMPLE
    with pytest.raises(UserError, match=r"params\.yaml: ") as error:
        load(written(tmp_path, added(EXAMPLE.replace(old, new))))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("shape", "highest", "says"),
    [
        (
            (3, 16),
            320,
            "pythia-70m: knows 320 tokens, and its windows hold number 320; families.pythia.tokenizer is another model's",
        ),
        (
            (3, 66),
            319,
            "pythia-70m: reads 64 tokens at most, and windows have 65 before the label; lower families.pythia.length",
        ),
    ],
)
def test_windows_that_a_model_cannot_read_are_refused(
    tmp_path: Path, shape: tuple[int, int], highest: int, says: str
) -> None:
    settings = load(written(tmp_path, added(EXAMPLE))).families["pythia"]
    subject = Subject(
        "pythia-70m",
        "pythia",
        settings,
        build("pythia-70m"),
        torch.full((3, 16), 319),
        0,
        (),
        Space(()),
    )
    minimum.check(subject)
    with pytest.raises(UserError) as error:
        minimum.check(replace(subject, tokens_NxL=torch.full(shape, highest)))
    assert str(error.value) == says
