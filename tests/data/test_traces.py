"""What is read from disk is what was written, and damage is noticed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from replicate.data import tensors, traces
from replicate.data.json_io import finite, read_json, rounded, write_json
from replicate.errors import UserError
from tests.scenarios import trace

ATTRIBUTES = {
    "stage": "estimate",
    "seed": 2**62 + 1,
    "sampler": {"sampler": "sgld", "lr": 1e-7 / 3, "bounding_box": None},
    "task": {"restriction": ["l0 attn", "norms"], "length": 200},
    "baseline": {"loss": 3.141592653589793, "windows": "91bc"},
}


def described() -> xr.Dataset:
    data = trace(2, 3, 5, 20).assign_attrs(ATTRIBUTES)
    data["seconds"] = data.loss * 0 + 0.5
    return data


def test_a_trace_comes_back_with_its_attributes_and_without_seconds(tmp_path: Path) -> None:
    traces.save(described(), tmp_path / "trace")
    found = traces.load(tmp_path / "trace")
    assert found.identical(described().drop_vars("seconds"))
    assert found.attrs == ATTRIBUTES


def test_seconds_do_not_change_a_byte_of_a_trace(tmp_path: Path) -> None:
    data = described()
    found = []
    for factor in (1, 3):
        traces.save(data.assign(seconds=factor * data.seconds), tmp_path / "trace")
        found.append([(path, path.read_bytes()) for path in files(tmp_path / "trace")])
    assert found[0] == found[1]


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def edit_attributes(store: Path) -> None:
    file = store / "zarr.json"
    found = json.loads(file.read_text())
    found["attributes"]["sampler"]["lr"] = 1e-7
    file.write_text(json.dumps(found))


@pytest.mark.parametrize(
    "damage",
    [
        edit_attributes,
        lambda store: files(store / "loss" / "c")[0].unlink(),
        lambda store: (store / "loss" / "zarr.json").write_text("{"),
        lambda store: (store / "zarr.json").unlink(),
    ],
    ids=["attribute", "chunk", "array", "store"],
)
def test_a_damaged_trace_is_refused(damage: Callable[[Path], None], tmp_path: Path) -> None:
    traces.save(described(), tmp_path / "trace")
    damage(tmp_path / "trace")
    with pytest.raises(UserError, match=r"trace: (damaged|cannot be read).*; delete it"):
        traces.load(tmp_path / "trace")


def test_damaged_tensors_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensors.save(file, {"a": array})
    np.testing.assert_array_equal(tensors.load(file)["a"], array)
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"\x01")
    with pytest.raises(UserError, match=r"a\.safetensors: damaged, its hash is another"):
        tensors.load(file)
    for content in (whole[:20], b""):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.safetensors: cannot be read"):
            tensors.load(file)
    with pytest.raises(UserError, match="cannot be read"):
        tensors.load(tmp_path / "nowhere")


def test_json_is_rounded_and_sorted_and_has_no_nan(tmp_path: Path) -> None:
    value = {"b": [1.23456789, float("nan")], "a": {"c": (float("inf"), 123456789.0, 3, None)}}
    write_json(tmp_path / "new" / "a.json", value)
    found = read_json(tmp_path / "new" / "a.json")
    assert found == {"a": {"c": [None, 123457000.0, 3, None]}, "b": [1.23457, None]}
    assert list(found) == ["a", "b"]
    assert finite(value)["b"] == [1.23456789, None]
    assert rounded(2 / 3) == 0.666667


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_json_that_cannot_be_read_is_named(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json: is missing; run the stage that writes it"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json: cannot be read \(\w+\); delete it"):
        read_json(tmp_path / "a.json")
