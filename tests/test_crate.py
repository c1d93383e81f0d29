"""The research object and the citation say what the repository has, and are valid by their own
validators.
"""

from __future__ import annotations

import runpy
import subprocess
import tomllib
from pathlib import Path

import pytest
import requests
import rocrate
import yaml
from cffconvert import Citation
from rocrate.rocrate import ROCrate
from rocrate_validator import services
from rocrate_validator.utils.http import HttpRequester

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def crate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as a release has it, with the description in its root."""
    folder = tmp_path_factory.mktemp("crate")
    for path in ROOT.iterdir():
        if path.name[0] != "." and path.name != "ro-crate-metadata.json":
            (folder / path.name).symlink_to(path)
    text = runpy.run_path(str(ROOT / "docs" / "crate.py"))["text"]()
    (folder / "ro-crate-metadata.json").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes RO-Crate's terms, which the validator would fetch, from the package `rocrate`. They are
    those of RO-Crate 1.3, which names Bioschemas' otherwise than 1.1.
    """

    def get(self: HttpRequester, url: str, **_: object) -> requests.Response:
        assert url.startswith("https://w3id.org/ro/crate/"), url
        answer = requests.Response()
        answer.status_code, answer.url, answer.encoding = 200, url, "utf-8"
        terms = (Path(rocrate.__file__).parent / "data" / "ro-crate.jsonld").read_bytes()
        answer._content = terms.replace(b"bioschemas.org/terms/", b"bioschemas.org/")
        answer.headers["Content-Type"] = "application/ld+json"
        return answer

    monkeypatch.setattr(HttpRequester, "get", get, raising=False)
    monkeypatch.setattr(HttpRequester, "head", get, raising=False)


def test_the_workflow_crate_follows_all_recommendations_but_two(offline: None, crate: Path) -> None:
    """Before a release there is no day of it, and the authors have no page."""
    settings = {
        "rocrate_uri": str(crate),
        "profile_identifier": "workflow-ro-crate-1.0",
        "requirement_severity": "RECOMMENDED",
        "no_cache": True,
        "skip_availability_check": True,
    }
    found = {issue.check.identifier for issue in services.validate(settings).get_issues()}
    assert found == {"ro-crate-1.1_22.4", "ro-crate-1.1_31.2"}


def test_what_the_crate_describes_is_in_git(crate: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    known = set(listed.stdout.splitlines())
    for entity in ROCrate(str(crate)).data_entities:
        assert entity.id in known or any(
            entity.id.endswith("/") and name.startswith(entity.id) for name in known
        ), entity.id


def test_the_citation_is_valid_and_of_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    Citation(text).validate()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = yaml.safe_load(text)
    assert (found["version"], found["license"]) == (project["version"], project["license"])
