"""The locks fit pyproject.toml and one another, and the bill of materials lists what they hold."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.conftest import ROOT

LOCKS = {
    file.stem: file.read_text(encoding="utf-8")
    for file in sorted((ROOT / "requirements").glob("*.lock"))
}
PINNED = {
    name: re.findall(r"^([a-z0-9][\w.-]*)(?:\[[^]]*\])?==([^ ;\\\n]+)", text, re.MULTILINE)
    for name, text in LOCKS.items()
}
BILL = json.loads((ROOT / "requirements" / "sbom.cdx.json").read_text(encoding="utf-8"))


def test_what_only_development_needs_is_not_in_the_runtime_locks() -> None:
    def names(packages: list) -> set[str]:
        return {re.split(r"[=<>\[]", each)[0] for each in packages if isinstance(each, str)}

    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime, groups = dict(PINNED["base"] + PINNED["cuda"]).keys(), wanted["dependency-groups"]
    assert names(groups["dev"] + groups["docs"]) <= dict(PINNED["dev"]).keys()
    assert not runtime & dict(PINNED["dev"]).keys()
    assert names(wanted["project"]["dependencies"]) <= runtime


def test_both_builds_of_torch_have_one_version() -> None:
    assert dict(PINNED["cpu"])["torch"] == dict(PINNED["cuda"])["torch"] + "+cpu"


def test_the_locks_name_no_host() -> None:
    assert [name for name, text in LOCKS.items() if "://" in text] == []


def test_the_bill_lists_each_locked_package_at_its_version_and_no_other() -> None:
    locked = [package for packages in PINNED.values() for package in packages]
    assert len(locked) > 150
    listed = [(component["name"], component["version"]) for component in BILL["components"]]
    assert sorted(listed) == sorted(locked)


def test_the_bill_has_every_hash_of_the_locks() -> None:
    listed = re.findall(r'"content": "([0-9a-f]{64})"', json.dumps(BILL))
    assert sorted(listed) == sorted(re.findall(r"--hash=sha256:([0-9a-f]{64})", str(LOCKS)))


def test_what_resolves_to_the_same_packages_gives_the_same_bytes(tmp_path: Path) -> None:
    """A stand-in for uv answers with the blocks of the locks that stand, merged and sorted."""
    project, answers = tmp_path / "project", tmp_path / "answers"
    shutil.copytree(ROOT / "requirements", project / "requirements")
    shutil.copy(ROOT / "pyproject.toml", project)
    (project / "requirements" / "sbom").write_text("#!/bin/sh\n")
    answers.mkdir()
    resolved = {"runtime": ("base", "cuda"), "all": ("base", "cuda", "dev"), "peers": tuple(PINNED)}
    for name, locks in resolved.items():
        texts = (LOCKS[lock].split("\n", 1)[1].rstrip("\n") for lock in locks if lock != "cpu")
        blocks = (block for text in texts for block in re.split(r"\n(?=[a-z])", text))
        merged = sorted(blocks, key=lambda block: re.split(r"[=\[ ]", block)[0])
        (answers / name).write_text("\n".join(merged) + "\n")
    uv = tmp_path / "uv"
    uv.write_text(f'#!/bin/bash\nout="${{@: -1}}"\ncp "{answers}/${{out##*/}}" "$out"\n')
    uv.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, project / "requirements" / "compile"]
    subprocess.run(command, env=os.environ | {"PATH": path}, check=True)
    written = {file.stem: file.read_text() for file in (project / "requirements").glob("*.lock")}
    assert written == LOCKS
