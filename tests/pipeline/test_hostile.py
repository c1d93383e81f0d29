"""Files made to do harm do none: nothing in them is executed, nothing is written elsewhere, and one
line says what is wrong.
"""

from __future__ import annotations

import ast
import json
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numcodecs import Pickle
from safetensors.torch import save_file

from replicate.data import tensors as arrays
from replicate.data import traces
from replicate.errors import UserError
from replicate.models import hub
from replicate.models import loading as models
from replicate.pipeline.planning import configurations
from replicate.search import trials as search
from tests import scenarios
from tests.conftest import ROOT, inherited, replicate

CPU = torch.device("cpu")
TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


_unpickled: list[str] = []
sys.addaudithook(
    lambda event, arguments: (
        _unpickled.append(str(arguments)) if event == "pickle.find_class" else None
    )
)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """What a payload would make; it must not be there in the end, nor anything have been
    unpickled.
    """
    _unpickled.clear()
    path = tmp_path / "pwned"
    yield path
    assert not path.exists()
    assert not _unpickled


def test_the_payload_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "pwned")))  # noqa: S301
    assert (tmp_path / "pwned").exists()
    assert _unpickled


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small control model as `pretrain` leaves it."""
    models.build("gpt2", layers=1, width=8, heads=2, vocabulary=16, length=8).save_pretrained(
        tmp_path / "model"
    )
    return tmp_path / "model"


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        models.load(folder, "float32", CPU)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_pickled_weights_are_not_read(model: Path, mark: Path) -> None:
    (model / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "model.pt", "adapter_model.bin"):
        torch.save({"x": Payload(mark)}, model / name)
    (model / "tf_model.h5").write_bytes(pickle.dumps(Payload(mark)))
    assert "no usable weights" in refused(model)


def test_pickled_weights_in_disguise_are_not_read(model: Path, mark: Path) -> None:
    torch.save({"x": Payload(mark)}, model / "model.safetensors")
    assert "no usable weights" in refused(model)


def edited(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("kind", ["gpt2", "evil"])
def test_code_of_a_repository_is_not_run(model: Path, mark: Path, kind: str) -> None:
    """Named in the configuration of a model that transformers knows it is passed over, of another
    it is refused.
    """
    (model / "evil.py").write_text(
        f"from pathlib import Path\nPath({str(mark)!r}).touch()\nclass Config: pass\nclass Model: pass\n"
    )
    edited(
        model,
        model_type=kind,
        auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
    )
    if kind == "gpt2":
        assert type(models.load(model, "float32", CPU)).__module__.startswith(
            "transformers.models.gpt2"
        )
    else:
        assert "no usable weights" in refused(model)


@pytest.mark.parametrize(
    "changes",
    [
        {"n_layer": "x"},
        {"n_embd": -1},
        {"n_head": 0},
        {"vocab_size": None},
        {"model_type": ["gpt2"]},
    ],
)
def test_a_configuration_that_fits_nothing_is_told(
    model: Path, mark: Path, changes: dict[str, Any]
) -> None:
    edited(model, **changes)
    assert "no usable weights" in refused(model)


def header(**tensors: Any) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


HEADERS = {
    "longer than the file": struct.pack("<Q", 2**63) + b"{}",
    "longest": b"\xff" * 8,
    "no JSON": struct.pack("<Q", 4) + b"evil",
    "deep": struct.pack("<Q", 100_000) + b"[" * 100_000,
    "offsets beyond the end": header(
        x={"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}
    ),
    "offsets that overlap": header(
        x={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        y={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
    )
    + b"0000",
    "offsets below 0": header(x={"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}),
    "shape that overflows": header(x={"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 0]}),
    "unknown dtype": header(x={"dtype": "OBJECT", "shape": [1], "data_offsets": [0, 4]}) + b"0000",
    "empty": b"",
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_lies_is_told(model: Path, name: str) -> None:
    (model / "model.safetensors").write_bytes(HEADERS[name])
    refused(model)
    with pytest.raises(UserError, match="cannot be read"):
        arrays.load(model / "model.safetensors")


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "pytorch_model.bin"])
def test_an_index_that_leads_elsewhere_reads_no_pickle(model: Path, mark: Path, name: str) -> None:
    (model / "model.safetensors").rename(model.parent / "outside.safetensors")
    (model.parent / "outside.safetensors").write_bytes(pickle.dumps(Payload(mark)))
    torch.save({"x": Payload(mark)}, model / "pytorch_model.bin")
    (model / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {"transformer.wte.weight": name}})
    )
    assert "no usable weights" in refused(model)


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "[]",
        "{}",
        '{"repository": "../..", "revision": "x"}',
        '{"repository": 3, "revision": null}',
        '{"repository": "a"}',
    ],
)
def test_a_manifest_that_names_no_model_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifest: str
) -> None:
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "manifest.json").write_text(manifest)
    refused(tmp_path)


def test_a_cached_configuration_that_wants_its_code_run_is_refused(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `python -m replicate plan` reads it."""
    (tmp_path / "evil.py").write_text(
        f"from pathlib import Path\nPath({str(mark)!r}).touch()\nclass Config: pass\n"
    )
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}})
    )
    monkeypatch.setattr(
        configurations, "try_to_load_from_cache", lambda *_, **__: str(tmp_path / "config.json")
    )
    with pytest.raises(UserError, match="no usable configuration"):
        configurations.of_hub("some/model", "0" * 40)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    found = scenarios.trace(draws=5)
    found["seconds"] = (("group", "chain"), np.ones((3, 2)))
    traces.save(found, tmp_path / "trace", tmp_path / "seconds")
    return tmp_path / "trace"


def test_a_trace_is_not_unpickled(tmp_path: Path, mark: Path) -> None:
    """Zarr's format 2 has a codec for it."""
    path = tmp_path / "trace"
    (path / "loss").mkdir(parents=True)
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    array = {
        "zarr_format": 2,
        "shape": [1],
        "chunks": [1],
        "dtype": "|O",
        "order": "C",
        "fill_value": None,
        "compressor": None,
    }
    (path / "loss" / ".zarray").write_text(
        json.dumps(array | {"filters": [{"id": "pickle", "protocol": 4}]})
    )
    (path / "loss" / ".zattrs").write_text('{"_ARRAY_DIMENSIONS": ["draw"]}')
    (path / "loss" / "0").write_bytes(bytes(Pickle().encode(np.array([Payload(mark)], object))))
    with pytest.raises(UserError, match="cannot be read"):
        traces.load(path)


@pytest.mark.parametrize("codec", ["numcodecs.pickle", "pickle", "vlen-bytes", "../../evil"])
def test_a_trace_chooses_no_codec_that_runs_code(trace: Path, mark: Path, codec: str) -> None:
    file = trace / "loss" / "zarr.json"
    described = json.loads(file.read_text()) | {"codecs": [{"name": codec, "configuration": {}}]}
    file.write_text(json.dumps(described))
    for chunk in (trace / "loss" / "c").rglob("0"):
        if chunk.is_file():
            chunk.write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(UserError, match="cannot be read"):
        traces.load(trace)


def test_a_trace_is_not_as_long_as_it_says(trace: Path) -> None:
    """Chunks that are not there would be filled in."""
    file = trace / "loss" / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"shape": [2**30, 2**10, 2**10]}))
    with pytest.raises(UserError, match="cannot be read"):
        traces.load(trace)


@pytest.mark.parametrize("where", ["/etc", "link to a file", "../outside"])
def test_a_trace_that_leads_elsewhere_is_told_and_nothing_is_written_there(
    trace: Path, where: str
) -> None:
    outside = trace.parent / "outside"
    shutil.copytree(trace / "loss", outside)
    before = {file: file.read_bytes() for file in outside.rglob("*") if file.is_file()}
    shutil.rmtree(trace / "loss")
    if where == "link to a file":
        (trace / "loss").mkdir()
        (trace / "loss" / "zarr.json").symlink_to("/etc/passwd")
    else:
        (trace / "loss").symlink_to(where)
    if where == "../outside":  # the same bytes: read, never written
        traces.load(trace)
    else:
        with pytest.raises(UserError):
            traces.load(trace)
    replaced = scenarios.trace(draws=6)
    replaced["seconds"] = (("group", "chain"), np.ones((3, 2)))
    traces.save(replaced, trace, trace.parent / "seconds")
    assert {file: file.read_bytes() for file in outside.rglob("*") if file.is_file()} == before


def test_what_a_search_kept_is_json_and_what_is_not_is_dropped(tmp_path: Path, mark: Path) -> None:
    file = tmp_path / "optuna.journal"
    storage = search.journal(file)
    search.optuna.create_study(storage=storage, study_name="sgld")
    whole = file.read_bytes()
    assert all(json.loads(line) for line in whole.splitlines())
    file.write_bytes(whole + pickle.dumps(Payload(mark)) + b"\n" + whole)
    assert [study.study_name for study in search.journal(file).get_all_studies()] == ["sgld"]
    assert file.read_bytes() == whole


FORBIDDEN = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def test_no_module_unpickles_or_trusts_code() -> None:
    """numpy's and torch's `load` unpickle; `eval`, `exec` and a shell run what they are given."""
    for file in (ROOT / "replicate").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & FORBIDDEN, file
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in FORBIDDEN, file
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in (
                    "torch.load",
                    "np.load",
                    "eval",
                    "exec",
                    "yaml.load",
                    "os.system",
                    "read_pickle",
                ), file
                given = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert given.get("trust_remote_code", "False") == "False", file
                assert given.get("shell", "False") == "False", file


# What DVC makes of names: it writes them into paths, which it deletes, and into commands, before
# any code of ours runs.

FAMILY = """  '{name}':
    corpus: films
    tokenizer: films
    rule: tokens
    length: 48
    search: {{model: mini-34k}}
    original: {{characters: 48}}
"""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What DVC needs of the project, beside a folder that is none of its business."""
    folder = tmp_path_factory.mktemp("hostile") / "project"
    (folder / ".dvc").mkdir(parents=True)
    shutil.copy(ROOT / "dvc.yaml", folder)
    shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc")
    (folder / "replicate").symlink_to(ROOT / "replicate")
    for name in ("windows", "models/mini-34k", "metrics.json"):
        (folder.parent / "victim" / name).mkdir(parents=True)
        (folder.parent / "victim" / name / "file").write_text("mine")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def dvc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = inherited()
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


MARK = "touch ../pwned"


@pytest.mark.parametrize(
    ("old", "new", "target"),
    [
        (
            "families:\n",
            f"families:\n{FAMILY.format(name=f'x; {MARK}; echo ')}",
            f"extract@x; {MARK}; echo ",
        ),
        ("families:\n", f"families:\n{FAMILY.format(name=f'$({MARK})')}", f"extract@$({MARK})"),
        ("families:\n", f"families:\n{FAMILY.format(name='../../victim')}", "extract@../../victim"),
        (
            "models: #",
            "models:\n  '../../../../victim': {family: mini}\n#",
            "pretrain@../../../../victim",
        ),
        ("mini-34k: {family: mini,", f'mini-34k: {{family: "mini; {MARK}; ",', "pretrain@mini-34k"),
        ("mini-34k: {family: mini,", 'mini-34k: {family: "../../victim",', "pretrain@mini-34k"),
        ("model: mini-34k", f'model: "mini-34k; {MARK}"', "search@mini"),
        ("  demo:\n", f"  '../../victim; {MARK}':\n", f"collect@../../victim; {MARK}"),
        ("full: mini\n", 'full: "../../victim"\n', "figures@demo"),
        ("corpus: films\n", f'corpus: "films; {MARK}"\n', "extract@mini"),
        ("seed: 2023", "seed: 20:23", "extract@mini"),
    ],
)
def test_dvc_runs_and_deletes_nothing_by_a_hostile_name(
    pipeline: Path, old: str, new: str, target: str
) -> None:
    assert old in TEXT
    (pipeline / "params.yaml").write_text(TEXT.replace(old, new, 1))
    done = dvc(pipeline, "repro", target)
    assert done.returncode != 0
    assert "Running stage 'check'" in done.stdout or "is specified in" in done.stderr
    assert done.stdout.count("Running stage") <= 1
    assert not (pipeline.parent / "pwned").exists()
    assert (
        len(
            [
                file
                for file in (pipeline.parent / "victim").rglob("file")
                if file.read_text() == "mine"
            ]
        )
        == 3
    )


def test_every_stage_with_a_name_in_it_waits_for_the_check() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for name, stage in stages.items():
        body = stage.get("do", stage)
        assert ("${" in json.dumps(body)) == ("data/params.checked" in body.get("deps", ())), name


# Secrets.

CANARY = "hf_" + "canary" * 5


@pytest.mark.parametrize(
    "line",
    [
        ["extract", "gpt2", "out"],
        ["pretrain", "gpt2", "folder", "out"],
        ["plan", "nothing"],
        ["check", "checked"],
        ["calibrate", "file", "log"],
        ["summary", "demo", "folder"],
    ],
    ids=lambda line: line[0],
)
def test_a_token_is_in_nothing_that_a_command_prints_or_writes(
    tmp_path: Path, line: list[str]
) -> None:
    (tmp_path / "params.yaml").write_text(TEXT)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    secrets = {
        "HF_TOKEN": CANARY,
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path / "home"),
    }
    done = replicate(*line, cwd=tmp_path, **secrets)
    assert CANARY not in done.stdout + done.stderr
    assert not [
        file
        for file in tmp_path.rglob("*")
        if file.is_file() and CANARY.encode() in file.read_bytes()
    ]


def test_safetensors_alone_are_written(tmp_path: Path, model: Path) -> None:
    """What a control model leaves can be loaded by nothing that unpickles."""
    assert {file.suffix for file in model.iterdir()} == {".json", ".safetensors"}
    save_file({"x": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="damaged"):
        arrays.load(tmp_path / "x.safetensors")
