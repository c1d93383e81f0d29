"""The locks fit pyproject.toml and one another, and the bill of materials lists what they hold."""

from __future__ import annotations

import json
import re
import tomllib

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
