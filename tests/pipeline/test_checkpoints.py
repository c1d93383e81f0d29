"""A finished chain is found again under the same inputs alone, and half a file is no chain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from replicate.pipeline.checkpoints import SOURCES, Checkpoints
from replicate.sampling import Chain
from tests.conftest import ROOT

CHAIN = Chain(np.arange(3.0), np.ones(3), np.zeros(3))


def test_a_chain_is_found_again(tmp_path: Path) -> None:
    (tmp_path / "windows").write_text("text")
    Checkpoints(tmp_path / "c", [tmp_path / "windows"], {"lr": 0.1})[1, 2] = CHAIN
    again = Checkpoints(tmp_path / "c", [tmp_path / "windows"], {"lr": 0.1})
    assert list(again) == [(1, 2)]
    assert (1, 2) in again
    assert (2, 1) not in again
    np.testing.assert_array_equal(again[1, 2].loss, CHAIN.loss)
    again.clear()
    assert len(again) == 0


def test_other_parameters_or_inputs_find_nothing(tmp_path: Path) -> None:
    (tmp_path / "windows").mkdir()
    (tmp_path / "windows" / "a").write_text("text")
    Checkpoints(tmp_path / "c", [tmp_path / "windows"], {"lr": 0.1})[0, 0] = CHAIN
    assert not Checkpoints(tmp_path / "c", [tmp_path / "windows"], {"lr": 0.2})
    (tmp_path / "windows" / "a").write_text("another")
    assert not Checkpoints(tmp_path / "c", [tmp_path / "windows"], {"lr": 0.1})


def test_a_chain_is_found_by_the_code_that_computes_it() -> None:
    """What stage estimate depends on is in the key, but for what reads and writes."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    code = {
        dep.removeprefix("replicate/")
        for dep in stages["estimate"]["do"]["deps"]
        if dep.startswith("replicate/")
    }
    files = {
        "arrays.py",
        "checkpoints.py",
        "environment.py",
        "hub.py",
        "kept.py",
        "stages/estimate.py",
        "traces.py",
        "writing.py",
    }
    assert code - files == set(SOURCES)


def test_half_a_file_is_no_chain(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, [], {})
    store[0, 0] = CHAIN
    file = next(store.folder.iterdir())
    file.write_bytes(file.read_bytes()[:20])
    assert (0, 0) not in store
    with pytest.raises(KeyError):
        store[0, 0]
