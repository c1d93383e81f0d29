"""One strict reader: every mistake is one line that names the key, exit code 2, and nothing changes
on disk.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from replicate.errors import UserError
from replicate.pipeline.config import load
from tests.conftest import ROOT, replicate

TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")

MISTAKES = [
    ("seed: 2023", "seeed: 2023", "seeed: unknown key"),
    ("seed: 2023", "seed: -1", "seed:"),
    ("seed: 2023", "seed: 1.5", "seed:"),
    ("seed: 2023", "seed: 2023\nseed: 2024", "'seed' stands twice"),
    ("nbeta: 30.0", "nbeta: '30'", "families.mini.sampling.nbeta: '30' is text"),
    ("nbeta: 30.0", "nbeta: .inf", "families.mini.sampling.nbeta:"),
    (
        "lr: [1.0e-7,",
        "lr: ['1e-7',",
        "'1e-7' is text where a number belongs; write it without quotes",
    ),
    (
        "{family: mini, source",
        "{family: minny, source",
        "models.mini-34k.family: 'minny' is not one of families",
    ),
    ("corpus: imdb", "corpus: imbd", "families.gpt2.corpus: 'imbd' is not one of corpora"),
    ("tokenizer: llama2", "tokenizer: llama3", "families.llama2.tokenizer: 'llama3'"),
    ("full: mini", "full: maxi", "studies.demo.full: 'maxi'"),
    ("model: mini-34k", "model: gpt2", "families.mini.search.model: 'gpt2' is of another family"),
    ("model: mini-34k", "model: nothing", "families.mini.search.model: 'nothing'"),
    ("rule: tokens", "rule: words", "families.mini.rule:"),
    ("source: generated", "source: invented", "corpora.films.source: write one of"),
    ("width: 24", "width: 25", "models.mini-34k.width: 25 is not a multiple"),
    ("607a30d783dfa663caf39e06633721c8d4cfcd7e", "main", "tokenizers.gpt2.revision:"),
    ("  films: # byte", "  ../films: # byte", "tokenizers"),
    (
        "batch_size: 32\n      groups: 4",
        "batch_size: 32\n      groups: 0",
        "families.mini.sampling.groups:",
    ),
    ("training:", "training: 3\nx:", "unknown key"),
    ("seed: 2023", "seed: [", "not YAML"),
]


@pytest.mark.parametrize(("old", "new", "says"), MISTAKES)
def test_a_mistake_is_one_line_that_names_the_key(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    assert old in TEXT
    (tmp_path / "params.yaml").write_text(TEXT.replace(old, new, 1))
    with pytest.raises(UserError, match=r"params\.yaml: ") as error:
        load(tmp_path / "params.yaml")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "new", "says"),
    [
        (
            ("extract", "mini", "out"),
            "seed: x",
            "error: params.yaml: seed: 'x' is text where a number belongs",
        ),
        (
            ("extract", "maxi", "out"),
            "seed: 1",
            "error: family 'maxi': params.yaml has none of that name; give one of mini",
        ),
        (("estimate", "mini"), "seed: 1", "Missing argument"),
        (
            ("pretrain", "mini-34k", "windows", "out", "log"),
            "seed: 1",
            "error: windows: missing; run the stage that makes it",
        ),
        (
            ("figures", "demo", "results", "data", "out"),
            "seed: 1",
            "error: results: missing; run the stage that makes it",
        ),
        (
            ("extract", "mini", "params.yaml"),
            "seed: 1",
            "error: params.yaml: is there already; remove it first",
        ),
    ],
)
def test_the_command_line_exits_with_2_and_touches_nothing(
    tmp_path: Path, arguments: tuple[str, ...], new: str, says: str
) -> None:
    (tmp_path / "params.yaml").write_text(TEXT.replace("seed: 2023", new))
    done = replicate(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize("number", ["1e-07", "1.e-7", "1E-7", "+1.0e-7"])
def test_a_number_is_read_however_dvc_writes_it(tmp_path: Path, number: str) -> None:
    (tmp_path / "params.yaml").write_text(TEXT.replace("1.0e-7", number))
    assert load(tmp_path / "params.yaml") == load(ROOT / "params.yaml")


def test_parameters_are_frozen() -> None:
    params = load(ROOT / "params.yaml")
    with pytest.raises(ValidationError, match="frozen"):
        params.seed = 1  # pyright: ignore[reportAttributeAccessIssue]


def test_a_missing_file_says_where_to_run() -> None:
    with pytest.raises(UserError, match="run this from the project's root"):
        load(Path("nowhere/params.yaml"))
