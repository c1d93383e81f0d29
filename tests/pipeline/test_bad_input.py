"""Whatever a user gives, a command answers with exit code 2 and one line that names it and the
remedy, and changes nothing on disk.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import os
import random
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xarray as xr
import yaml
from click.testing import CliRunner
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pyarrow import parquet

from replicate.__main__ import main
from replicate.data import corpora, traces, windows
from replicate.data import tensors as arrays
from replicate.data.json_io import write_json
from replicate.errors import LONGEST, UserError
from replicate.pipeline.config import Params, load
from replicate.pipeline.stages import chains, workload
from replicate.sampling import Setting
from replicate.study import published
from replicate.study import records as results
from replicate.study.records import FILES
from tests import scenarios
from tests.conftest import ROOT, replicate

TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")
DATA = yaml.safe_load(TEXT)
SCHEMA = Params.model_json_schema()


def told(call: Callable[[], object], *named: str) -> str:
    """The one line in which a mistake is told."""
    with pytest.raises(UserError) as error:
        call()
    line = str(error.value)
    assert line.isprintable()
    assert len(line) < LONGEST + 9
    assert "; " in line or "write one of" in line, "no remedy"
    for name in named:
        assert name in line
    return line


def bomb(opening: str, inside: Callable[[str], str]) -> str:
    """Nine lines, each of nine times the one before: 9⁹ values."""
    return opening + "".join(
        f"{b}: &{b} {inside(a)}\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
    )


FILES_OF_PARAMETERS: dict[str, bytes] = {
    name: content if isinstance(content, bytes) else content.encode()
    for name, content in {
        "empty": "",
        "comment alone": "# nothing\n",
        "null": "null",
        "list": "[]",
        "number": "3",
        "UTF-16": TEXT.encode("utf-16"),
        "Latin-1": "# é\n".encode("latin-1"),
        "bytes": bytes(range(256)) * 100,
        "NUL": "seed: 1\0",
        "control character": "seed: \x1b[31m",
        "escape sequence": 'seed: "\\x1b[31mred\\n"\n',
        "escape sequence as key": TEXT + '"a\\nb\\x1b[31m": 1\n',
        "half a pair": 'seed: "\\ud800"\n',
        "line separator": TEXT.replace("# every other", "# \u2028x: 1"),
        "tab": TEXT.replace("  films: #", "\tfilms: #"),
        "bomb of lists": bomb(
            "a: &a [x, x, x, x, x, x, x, x, x]\n", lambda a: f"[{', '.join([f'*{a}'] * 9)}]"
        ),
        "bomb of blocks": bomb(
            "a: &a {x: 1}\n", lambda a: f"{{{', '.join(f'k{i}: *{a}' for i in range(9))}}}"
        ),
        "bomb of merges": bomb("a: &a {x: 1}\n", lambda a: f"{{<<: [{', '.join([f'*{a}'] * 9)}]}}"),
        "bomb where it fits": TEXT.replace("[all]", "&a [all, all]", 1).replace(
            "lr: [1.0e-6, 1.0e-5", "lr: [*a, 1.0e-5"
        ),
        "list in itself": "a: &a [*a]\n",
        "block in itself": "families: &a {b: *a}\n",
        "merged into itself": "families: &a\n  <<: *a\n",
        "alias of nothing": "seed: *x",
        "merged text": "a: {<<: x}\n",
        "merged list of text": "a: {<<: [x]}\n",
        "merged nothing": "a: {<<: null}\n",
        "merged twice": "a: &a {x: 1}\nb: {<<: *a, <<: *a}\n",
        "object of Python": 'seed: !!python/object/apply:os.system ["true"]\n',
        "function of Python": "seed: !!python/name:os.system\n",
        "tag": "seed: !x 3\n",
        "binary": "seed: !!binary aGVsbG8=\n",
        "set": "seed: !!set {a, b}\n",
        "date": TEXT.replace("seed: 2023", "seed: 2023-11-01"),
        "no date": TEXT.replace("seed: 2023", "seed: 2023-13-45"),
        "number as key": TEXT.replace("seed: 2023", "2023: 1"),
        "nothing as key": TEXT.replace("seed: 2023", "null: 1"),
        "list as key": "? [a, b]\n: 1\n",
        "key twice": "seed: 1\nseed: 2\n",
        "key twice within": TEXT.replace("  processes: auto", "  processes: auto\n  processes: 2"),
        "two documents": "a: 1\n---\nb: 2\n",
        "other version": "%YAML 9.9\n---\na: 1\n",
        "unclosed quote": 'seed: "abc',
        "deep lists": "a: " + "[" * 5000 + "]" * 5000,
        "deep blocks": "{a: " * 2000 + "1" + "}" * 2000,
        "5000 digits": f"seed: {'9' * 5000}",
        "400 digits": TEXT.replace("2023", "9" * 400),
        "more than a float": TEXT.replace("nbeta: 30.0", "nbeta: 1.0e+400"),
        "long key": TEXT + f"? {'x' * 90000}\n: 1\n",
        "long text": TEXT.replace("2023", f'"{"x" * 100_000}"'),
        "long name": TEXT.replace("  films: #", f"  {'f' * 300}: #", 1),
        "megabytes": "# " + "x" * (4 << 20),
        "no studies": TEXT[: TEXT.index("studies:")] + "studies: {}\n",
        "study called published": TEXT.replace("  demo:\n", "  published:\n"),
        "range upside down": TEXT.replace("[1.0e-4, 3.0e-3]", "[3.0e-3, 1.0e-4]"),
        "factor twice": TEXT.replace("[0.333, 1.0, 3.0]", "[1.0, 1.0, 3.0]", 1),
        "no factor 1": TEXT.replace("[0.333, 1.0, 3.0]", "[0.333, 3.0]", 1),
        "NUL in a path": TEXT.replace("path: data/own/tokenizer", 'path: "data/own\\0"'),
        "path out of a repository": TEXT.replace("file: plain_text/train-", "file: ../../train-"),
        "path as repository": TEXT.replace("repository: stanfordnlp/imdb", "repository: ../.."),
    }.items()
}


@pytest.mark.parametrize("name", FILES_OF_PARAMETERS)
def test_a_file_of_parameters_that_is_none_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "params.yaml").write_bytes(FILES_OF_PARAMETERS[name])
    told(lambda: load(tmp_path / "params.yaml"), "params.yaml: ")


@pytest.mark.parametrize(
    "name", [name for name in FILES_OF_PARAMETERS if name.startswith("bomb of")]
)
def test_what_a_few_lines_stand_for_is_not_spelled_out(tmp_path: Path, name: str) -> None:
    (tmp_path / "params.yaml").write_bytes(FILES_OF_PARAMETERS[name])
    tracemalloc.start()
    told(lambda: load(tmp_path / "params.yaml"), "aliases stand for more than 100,000 values")
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("kind", ["missing", "folder", "link to itself", "pipe", "unreadable"])
def test_what_is_no_file_in_the_place_of_parameters_is_told(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "params.yaml"
    if kind == "folder":
        path.mkdir()
    elif kind == "link to itself":
        path.symlink_to(path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "unreadable":
        path.write_text(TEXT)
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("this account reads everything")
    told(lambda: load(path), "params.yaml: ")


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert load(tmp_path / "params.yaml") == load(ROOT / "params.yaml")


# A mistake anywhere in the schema.

ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    0.5,
    -1e-9,
    10**30,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "30",
    [],
    [None],
    [[]],
    [{}],
    {},
    {"a": 1},
]
HOSTILE = [
    "a b",
    "../a",
    "a/b",
    "/a",
    "..",
    ".",
    "a.b",
    "-a",
    "A",
    "é",
    "a\n",
    "\x1b[31m",
    "",
    "x; touch y",
    "$(id)",
    "`id`",
    "a'b",
    '"',
    "a" * 65,
]


def resolved(node: dict[str, Any], value: Any) -> dict[str, Any]:
    """The schema of a value, its `$ref` followed, and of several the one that the value is of."""
    while "$ref" in node:
        node = SCHEMA["$defs"][node["$ref"].rsplit("/", 1)[1]]
    for option in node.get("oneOf", node.get("anyOf", ())):
        if valid(option, value):
            return resolved(option, value)
    return node


def valid(node: dict[str, Any], value: Any) -> bool:
    return Draft202012Validator(node | {"$defs": SCHEMA["$defs"]}).is_valid(value)


def places(
    node: dict[str, Any], value: Any, at: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    """Every place in the parameters, and its schema."""
    yield at, node
    own = resolved(node, value)
    if isinstance(value, dict):
        for key, inner in value.items():
            found = (
                own["properties"][key]
                if "properties" in own
                else own.get("additionalProperties")
                or next(iter(own["patternProperties"].values()))
            )
            yield from places(found, inner, (*at, key))
    elif isinstance(value, list) and value:
        yield from places(own.get("items") or own["prefixItems"][0], value[0], (*at, 0))


SMALL = copy.deepcopy(DATA)  # one family: reading YAML takes most of the time
for section, kept in (
    ("families", {"mini"}),
    ("models", {"mini-34k", "mini-110k", "gpt2"}),
    ("studies", {"demo"}),
):
    SMALL[section] = {key: value for key, value in SMALL[section].items() if key in kept}
SMALL["models"]["gpt2"]["family"] = SMALL["studies"]["demo"]["quantised"] = "mini"
SMALL["studies"]["demo"]["quantisation"]["models"] = ["mini-34k"]
PLACES = [
    (at, node)
    for at, node in places(SCHEMA, json.loads(json.dumps(SMALL)))
    if at and at[-1] != "models"
]


@settings(max_examples=150, derandomize=True, deadline=None, database=None, phases=[Phase.generate])
@given(st.data())
def test_a_mistake_anywhere_in_the_parameters_is_told(data: st.DataObject) -> None:
    parameters = copy.deepcopy(SMALL)
    at, node = data.draw(st.sampled_from(PLACES))
    block = parameters
    for key in at[:-1]:
        block = block[key]
    key, value = at[-1], block[at[-1]]
    kind = data.draw(st.sampled_from(["wrong", "missing", "unknown", "name"]))
    named = str(key)
    if kind == "missing" and isinstance(block, dict) and len(at) != 2:
        del block[key]
    elif kind == "unknown" and isinstance(value, dict) and len(at) != 1:
        named = data.draw(st.text(min_size=1, max_size=20))
        value[named] = 1
        named = ""
    elif (
        kind == "name"
        and len(at) == 2
        and at[0] in ("families", "models", "studies", "corpora", "tokenizers")
    ):
        block[data.draw(st.sampled_from(HOSTILE))] = block.pop(key)
        named = ""
    else:
        block[key] = data.draw(st.sampled_from([odd for odd in ODD if not valid(node, odd)]))
        named = "" if isinstance(key, int) or len(at) == 2 else str(key)
    path = Path(os.environ["PYTEST_SCRATCH"])
    path.write_text(
        yaml.dump(parameters, Dumper=yaml.CSafeDumper, allow_unicode=True), encoding="utf-8"
    )
    told(lambda: load(path), str(path), named)


@pytest.fixture(autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_SCRATCH", str(tmp_path_factory.mktemp("scratch") / "params.yaml"))


# Command lines.


def state(folder: Path) -> dict[str, object]:
    """All that is in a folder, but for the log of runs, which those that fail are noted in too."""
    found = (path for path in folder.rglob("*") if path.relative_to(folder).parts[0] != "logs")
    return {
        str(p): p.read_bytes() if p.is_file() else str(p.readlink()) if p.is_symlink() else None
        for p in found
    }


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_text(TEXT)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    return tmp_path


LINES = [
    ["nope"], ["extrct"], ["--bogus"], ["extract"], ["extract", "mini"], ["extract", "mini", "o", "p"], ["extract", "maxi", "o"],
    ["extract", "mini", "--x", "o"], ["extract", "-x"], ["extract", "", ""], ["extract", "mini", ""], ["extract", "mini", "file"],
    ["extract", "mini", "folder"], ["extract", "mini", "file/o"], ["extract", "mini", "x" * 300], ["extract", "mini", "dangling"],
    ["extract", "mini", "loop"], ["extract", "mini", "loop/x"], ["extract", "mini\n\x1b[31m", "o"], ["extract", "../mini", "o"],
    ["extract", "mini; touch x", "o"], ["extract", "mini\udcff", "o"], ["pretrain", "gpt3", "folder", "o"],
    ["pretrain", "mini-34k", "none", "o"], ["pretrain", "mini-34k", "file", "o"], ["pretrain", "mini-34k", "folder", "folder/o"],
    ["baseline", "mini-34k", "folder", "folder", "o"], ["search", "mini", "folder", "folder", "folder", "folder", "l"],
    ["search", "mini", "folder", "folder", "folder", "o", "file"], ["collect", "demo", "file", "o"],
    ["collect", "none", "folder", "o"], ["collect", "demo", "folder", "file"], ["claims", "demo", "folder", "folder", "o"],
    ["claims", "demo", "folder", "file", "file"], ["claims", "demo", "file", "file", "o"], ["published", "folder", "o"],
    ["published", "file", "o"], ["figures", "demo", "folder", "file", "o"], ["tables", "demo", "folder", "file", "o"],
    ["summary", "demo", "folder"], ["summary", "demo", "none"], ["reference", "folder", "file", "folder", "o"],
    ["reference", "results", "file", "file", "o"],
    ["report", "folder", "file", "folder", "o"], ["report", "none", "file", "folder", "o"], ["report", "folder", "folder", "folder", "o"],
    ["report", "folder", "file", "none", "o"], ["report", "folder", "file", "folder", "folder"],
    ["report", "folder", "file", "folder", "file/o"],
    ["calibrate", "file", "l"], ["calibrate", "o", "file/l"], ["schemas", "file"], ["schemas"], ["paper", "none.tex"],
    ["paper", "folder"], ["plan", "nope"], ["plan", "--device"], ["plan", "--json=3"], ["check", "a", "b"],
    ["check", "folder"], ["check", "file/x"], ["check", "loop"], ["check", "x" * 300], ["check", ""], ["schemas", ""],
    ["collect", "demo", "folder", ""], ["paper", "file"], ["paper", "params.yaml"], ["paper", "--", "--check"],
]  # fmt: skip


@pytest.mark.parametrize(
    "line", LINES, ids=[" ".join(line)[:40].encode("unicode_escape").decode() for line in LINES]
)
def test_a_wrong_command_line_is_told(project: Path, line: list[str]) -> None:
    before = state(project)
    done = CliRunner().invoke(main, line, prog_name="python -m replicate")
    assert done.exit_code == 2
    assert isinstance(done.exception, SystemExit)
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith("\n")
    assert done.stderr[:-1].isprintable()
    assert "; " in done.stderr
    assert state(project) == before


ENDS = [
    ("seed: 2023", ["extract", "mini", "o", "p"]),
    ("seed: 2023", ["nope"]),
    ("seed: 2023", ["plan", "--bogus"]),
    ("seed: x", ["check"]),
    (
        "seed: 20:23",
        ["check", "checked"],
    ),  # sixty to the base for one reader of YAML, text for DVC's
    ("seed: [", ["extract", "mini", "o"]),
    ("seed: !!python/object/apply:os.system [touch pwned]", ["extract", "mini", "o"]),
    ("seed: 2023", ["pretrain", "mini-34k", "folder", "folder/o"]),
    ("seed: 2023", ["estimate", "mini-34k", *["folder"] * 4, "o", "l"]),
    ("seed: 2023", ["collect", "demo", "file", "o"]),
    ("seed: 2023", ["tables", "demo", "folder", "file", "o"]),
    ("seed: 2023", ["summary", "demo", "folder"]),
]


@pytest.mark.parametrize(("seed", "line"), ENDS, ids=[" ".join(line) for _, line in ENDS])
def test_a_process_ends_as_the_command_does(project: Path, seed: str, line: list[str]) -> None:
    (project / "params.yaml").write_text(
        TEXT.replace("seed: 2023", seed).replace("processes: auto", "processes: 1")
    )
    before = state(project)
    done = replicate(*line, cwd=project)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert state(project) == before


@pytest.mark.parametrize("command", [[], ["extract"], ["plan"], ["paper"]])
def test_help_is_as_it_was(command: list[str]) -> None:
    done = CliRunner().invoke(main, [*command, "--help"], prog_name="python -m replicate")
    assert done.exit_code == 0
    assert done.stdout.startswith(f"Usage: {' '.join(['python -m replicate', *command])} ")


# Files of text, tokenizers and figures.

GZIP = gzip.compress(b'{"text": "a b"}\n' * 1000)


def table() -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.table({"text": ["a b c"] * 1000}), buffer)
    return buffer.getvalue()


REVIEWS: dict[str, bytes] = {
    "empty.jsonl": b"",
    "empty.csv": b"",
    "empty.parquet": b"",
    "empty.jsonl.gz": b"",
    "of nothing.jsonl.gz": gzip.compress(b""),
    "half.jsonl.gz": GZIP[: len(GZIP) // 2],
    "without its end.jsonl.gz": GZIP[:-4],
    "flipped.jsonl.gz": GZIP[:30] + bytes([GZIP[30] ^ 255]) + GZIP[31:],
    "wrong sum.jsonl.gz": GZIP[:-6] + bytes([GZIP[-6] ^ 1]) + GZIP[-5:],
    "not zipped.jsonl.gz": b'{"text": "a"}\n',
    "otherwise zipped.jsonl.gz": b"PK\x03\x04" + b"0" * 100,
    "bytes.jsonl": bytes(range(256)) * 100,
    "bytes.csv": bytes(range(256)) * 100,
    "bytes.parquet": bytes(range(256)) * 100,
    "half.parquet": table()[:-100],
    "flipped.parquet": table()[:200] + b"\xff" * 20 + table()[220:],
    "lines.parquet": b'{"text": "a"}\n',
    "lists.jsonl": b"[1, 2]\n",
    "deep.jsonl": b'{"text": ' + b"[" * 100_000,
    "long.jsonl": b'{"text": "' + b"x" * (20 << 20) + b'"}\n',
    "mixed.jsonl": b'{"text": "a"}\n{"text": 3}\n',
    "column twice.jsonl": b'{"text": "a", "text": "b"}\n',
    "half a pair.jsonl": b'{"text": "\\ud800"}\n',
    "list of text.jsonl": b'{"text": ["a"]}\n',
    "Latin-1.jsonl": '{"text": "é"}\n'.encode("latin-1"),
    "Latin-1.csv": "text\né\n".encode("latin-1"),
    "UTF-16.csv": "text\na".encode("utf-16"),
    "column twice.csv": b"text,text\na,b\n",
    "numbers.csv": b"text\n1\n2\n",
    "nothing.csv": b"text\n\nNA\n",
    "other column.csv": b"a\x1b[31mb\nx\n",
    "no ending": b"a",
    "reviews.zip": b"a",
}


@pytest.mark.parametrize("name", REVIEWS)
def test_reviews_that_cannot_be_read_are_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(REVIEWS[name])
    told(lambda: corpora.read(tmp_path / name), name.split(".")[0])


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_a_review_of_the_tree_that_cannot_be_read_is_told(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "aclImdb" / "train" / "neg" / "0_1.txt"
    file.parent.mkdir(parents=True)
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    told(lambda: corpora.read(tmp_path / "aclImdb"), "0_1.txt")


TOKENIZER = json.loads(windows.train_tokenizer(["a b c d"] * 9, 300).to_str())
TOKENIZERS = {
    "empty": "",
    "null": "null",
    "nothing": "{}",
    "list": "[]",
    "bytes": "\0\1",
    "half": json.dumps(TOKENIZER)[:2000],
    "unknown model": json.dumps(TOKENIZER | {"model": {"type": "other"}}),
    "negative number": json.dumps(TOKENIZER | {"model": TOKENIZER["model"] | {"vocab": {"a": -1}}}),
    "number of 32 bits": json.dumps(
        TOKENIZER | {"model": TOKENIZER["model"] | {"vocab": {"a": 2**32 - 2}, "merges": []}}
    ),
    "merge of nothing": json.dumps(
        TOKENIZER | {"model": TOKENIZER["model"] | {"merges": ["zz qq"]}}
    ),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_that_is_none_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "tokenizer.json").write_text(TOKENIZERS[name])
    told(lambda: windows.read_tokenizer(tmp_path), str(tmp_path))


FIGURES = yaml.safe_load((ROOT / "data" / "published.yaml").read_text(encoding="utf-8"))
FAULTS: list[tuple[tuple[str, ...], Any]] = [
    (("families",), {}),
    (("families", "gpt2", "models"), {}),
    (("families", "gpt2", "models", "gpt2", "parameters"), 0),
    (("families", "gpt2", "models", "gpt2", "reported"), float("nan")),
    (("families", "gpt2", "models", "gpt2", "mean"), []),
    (("families", "gpt2", "models", "gpt2", "mean"), [-1.0] * 4),
    (("families", "gpt2", "models", "gpt2", "mean"), [1.0, 2.0]),
    (("families", "gpt2", "chains"), 0),
    (("families", "gpt2", "nbeta"), "x"),
    (("search", "lr"), []),
    (("search", "sgld", "stability"), []),
    (("search", "diffusion", "llc"), [1.0]),
    (("search", "unknown"), 1),
]


@pytest.mark.parametrize(("at", "value"), FAULTS, ids=[".".join(at) for at, _ in FAULTS])
def test_published_figures_that_do_not_fit_are_told(
    tmp_path: Path, at: tuple[str, ...], value: Any
) -> None:
    figures = copy.deepcopy(FIGURES)
    block = figures
    for key in at[:-1]:
        block = block[key]
    block[at[-1]] = value
    (tmp_path / "published.yaml").write_text(yaml.safe_dump(figures))
    told(lambda: published.read(tmp_path / "published.yaml"), "published.yaml: ")


@pytest.mark.parametrize(
    "content", ["", "[]", "\0", "[" * 5000, "!!python/object/apply:os.system [x]", "a: &a [*a]"]
)
def test_published_figures_that_are_no_yaml_are_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "published.yaml").write_text(content)
    told(lambda: published.read(tmp_path / "published.yaml"), "published.yaml: ")


# What stages left.


@pytest.mark.parametrize(
    "content", ["", "3", "null", "{}", "[3]", "[{}]", "[" * 5000, '[{"family": "mini"}]', "\0", "é"]
)
@pytest.mark.parametrize("name", FILES)
def test_results_that_are_none_are_told(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / f"{name}.json").write_bytes(content.encode("latin-1"))
    told(lambda: results.read(tmp_path / f"{name}.json", FILES[name]), f"{name}.json: ")


@pytest.mark.parametrize("content", ["[]", "{}", "3", '{"kept": "x"}', '{"kept": 1e999}'])
def test_statistics_of_windows_that_are_none_are_told_before_a_stage_starts(
    project: Path, content: str
) -> None:
    file = project / "data" / "mini" / "windows" / "statistics.json"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    told(lambda: workload.examples(load(), "mini"), "statistics.json: ")


UNFIT = {
    "windows/statistics.json": '{"kept": "x"}',
    "models/mini-34k/training.json": '"x"',
    "models/mini-34k/manifest.json": "[]",
    "search/trials.json": "[3]",
    "search/importances.json": "[{}]",
    "baselines/mini-34k/baseline.json": '{"a": 1}',
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_a_stage_left_is_told_where_it_is_another_s(project: Path, name: str) -> None:
    """It can be read, and is of no shape that `collect` knows."""
    (project / "data" / "mini" / name).parent.mkdir(parents=True)
    (project / "data" / "mini" / name).write_text(UNFIT[name])
    before = state(project)
    done = CliRunner().invoke(
        main, ["collect", "demo", "data", "out"], prog_name="python -m replicate"
    )
    assert done.exit_code == 2, done.stderr
    assert done.stderr.startswith("error: data: its files do not fit one another (")
    assert done.stderr.count("\n") == 1
    assert state(project) == before


@pytest.mark.parametrize(
    "content",
    [
        "",
        "3",
        "{}",
        '{"sampler": "sgld"}',
        '{"sampler": "x", "lr": 1.0}',
        '{"sampler": "sgld", "lr": "x"}',
        "{",
        "\0",
    ],
)
def test_a_setting_that_is_none_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "chosen.json").write_text(content)
    told(lambda: chains.chosen(tmp_path), "chosen.json: ")


def test_the_setting_that_a_search_chose_is_taken_as_it_is(tmp_path: Path) -> None:
    setting = Setting("sgnht", 1e-6, bounding_box=0.5, diffusion=0.1)
    write_json(tmp_path / "chosen.json", asdict(setting))
    assert chains.chosen(tmp_path) == setting


def flips(file: Path, count: int, seed: int = 0) -> Iterator[None]:
    """A file with one bit flipped, or cut off, again and again."""
    whole, rng = file.read_bytes(), random.Random(seed)
    for i in range(count):
        damaged = bytearray(whole)
        if i % 6 == 5:
            del damaged[rng.randrange(len(whole)) :]
        else:
            damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        yield
    file.write_bytes(whole)


def test_damaged_windows_are_told(tmp_path: Path) -> None:
    """Any bit, of tokens or of the header."""
    tokens = np.arange(60, dtype=np.int32).reshape(12, 5)
    found = windows.Windows(tokens, np.arange(12, dtype=np.int32), np.zeros(12, bool), None, {})
    found.save(tmp_path / "windows.safetensors")
    assert (windows.load(tmp_path / "windows.safetensors").tokens_NxL == tokens).all()
    for _ in flips(tmp_path / "windows.safetensors", 120):
        told(lambda: windows.load(tmp_path / "windows.safetensors"), "windows.safetensors: ")


def test_arrays_that_something_else_wrote_are_not_taken(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"losses": np.ones(3, np.float32)}, tmp_path / "losses.safetensors")
    told(lambda: arrays.load(tmp_path / "losses.safetensors"), "losses.safetensors: damaged")


@pytest.mark.filterwarnings("ignore:Object at")
def test_a_damaged_trace_is_told_or_the_same(tmp_path: Path) -> None:
    """Any bit of any file, and any file missing: Zarr takes a chunk that is not there for one that
    was never written.
    """
    trace = scenarios.trace(draws=20).assign_attrs(nbeta=30.0, lr=1e-4)
    trace["seconds"] = (("group", "chain"), np.ones((3, 2)))
    path = tmp_path / "trace"
    traces.save(trace, path, tmp_path / "seconds")
    whole = traces.load(path)
    xr.testing.assert_identical(whole, trace.drop_vars("seconds"))

    def read() -> None:
        if traces.load(path).identical(whole):
            raise UserError("trace: the same; nothing to mend")

    files = sorted(file for file in path.rglob("*") if file.is_file())
    for i, file in enumerate(files):
        for _ in flips(file, 12, seed=i):
            told(read, "trace: ")
        content = file.read_bytes()
        file.unlink()
        told(read, "trace: ")
        file.write_bytes(content)
