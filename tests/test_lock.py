"""dvc.lock describes the code, the locked packages and the results that stand beside it."""

from __future__ import annotations

from pathlib import Path

from dvc.repo import Repo

from tests.conftest import ROOT

COMPARED = ("replicate/", "requirements/", "results/")


def test_the_hashes_of_code_and_results_are_those_of_the_files() -> None:
    """If not, run `dvc repro` for the stages named here; stages that never ran do not count."""
    with Repo(str(ROOT)) as repo:
        entries = [
            (stage.addressing, entry, Path(entry.fs_path))
            for stage in repo.index.stages
            for entry in (*stage.deps, *stage.outs)
            if entry.hash_info  # what has run
        ]
        changed = [
            f"{stage}: {path.relative_to(ROOT)}"
            for stage, entry, path in entries
            if f"{path}/".startswith(tuple(f"{ROOT / name}/" for name in COMPARED))
            and entry.changed_checksum()
        ]
    assert changed == []
