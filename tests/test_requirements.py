"""The bill of materials and the locks say the same."""

from __future__ import annotations

import json
import re

from tests.conftest import ROOT

LOCKS = "".join(
    file.read_text(encoding="utf-8") for file in sorted((ROOT / "requirements").glob("*.lock"))
)
BILL = json.loads((ROOT / "requirements" / "sbom.cdx.json").read_text(encoding="utf-8"))


def test_the_bill_lists_each_locked_package_at_its_version_and_no_other() -> None:
    locked = re.findall(r"^([a-z0-9][\w.-]*)(?:\[[^]]*\])?==([^ ;\\\n]+)", LOCKS, re.MULTILINE)
    assert len(locked) > 150
    listed = [(component["name"], component["version"]) for component in BILL["components"]]
    assert sorted(listed) == sorted(locked)
    assert len({component["bom-ref"] for component in BILL["components"]}) == len(listed)


def test_the_bill_has_every_hash_of_the_locks() -> None:
    places = [
        place
        for component in BILL["components"]
        for place in component.get("externalReferences", ())
    ]
    listed = [found["content"] for place in places for found in place.get("hashes", ())]
    assert sorted(listed) == sorted(re.findall(r"--hash=sha256:([0-9a-f]{64})", LOCKS))


def test_the_bill_holds_no_time_and_no_serial_number() -> None:
    """The same locks give the same bytes."""
    assert "serialNumber" not in BILL
    assert "timestamp" not in BILL["metadata"]
