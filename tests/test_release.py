"""A release is one command: what it publishes is whole, and it says by which digest the image is
found.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, git, inherited

CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
VERSION = CITATION["version"]
DIGEST = "registry.example/someone/replicate@sha256:0123"
STUBS = {  # commands that need accounts, or minutes; each notes how it was called
    "make": "touch report.html paper/main.pdf",
    "docker": f'[ "$1" != inspect ] || echo {DIGEST}',
    "gh": '[ "$1" != repo ] || echo Someone/Replicate',
}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone at the tag of this version, and the stubs beside it."""
    (tmp_path / "bin").mkdir()
    for name, body in STUBS.items():
        stub = tmp_path / "bin" / name
        stub.write_text(f'#!/bin/sh\necho "{name} $*" >>"{tmp_path}/called"\n{body}\n')
        stub.chmod(0o755)
    python = tmp_path / "bin" / "python"  # a link would not find the environment's packages
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    git(tmp_path, "clone", "-q", "--depth=1", "--no-tags", f"file://{ROOT}", "clone")
    git(tmp_path / "clone", "tag", "-a", "-m", VERSION, f"v{VERSION}")
    return tmp_path / "clone"


def release(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = f"{clone.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [".ci/release", *arguments],
        cwd=clone,
        env=inherited() | {"PATH": path, "REGISTRY": "registry.example"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_release_holds_archive_results_traces_report_and_pdf(clone: Path) -> None:
    done = release(clone)
    assert done.returncode == 0, done.stderr
    out = clone / "dist" / f"v{VERSION}"
    names = {path.name.replace(f"-{VERSION}", "") for path in out.iterdir()}
    packed = {"replicate.tar.gz", "results.tar.gz", "traces.tar.gz"}
    assert names == packed | {"report.html", "paper.pdf", "SHA256SUMS"}
    for archive, file in (
        ("replicate", "ro-crate-metadata.json"),
        ("results", "results/control/claims.json"),
        ("traces", "data/kept/sizes/10k-1.npz"),
    ):
        with tarfile.open(out / f"{archive}-{VERSION}.tar.gz") as opened:
            held = opened.getnames()
        assert any(name.startswith(f"replicate-{VERSION}/{file}") for name in held), archive
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=out, check=True)
    called = (clone.parent / "called").read_text().splitlines()
    assert f"docker push registry.example/someone/replicate:{VERSION}" in called
    assert called[-1].startswith(f"gh release create v{VERSION} --verify-tag")
    assert f"Image: `{DIGEST}`" in called[-1]


def test_building_publishes_nothing(clone: Path) -> None:
    assert release(clone, "build").returncode == 0
    assert (clone.parent / "called").read_text() == "make report paper\n"


def test_a_tag_of_another_version_is_refused_before_anything_is_built(clone: Path) -> None:
    git(clone, "tag", "-d", f"v{VERSION}")
    git(clone, "tag", "v99.0.0")
    done = release(clone)
    assert done.returncode == 2
    assert "CITATION.cff has another version than v99.0.0" in done.stderr
    assert not (clone.parent / "called").exists()


def test_zenodo_is_told_what_the_citation_says() -> None:
    told = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    assert (told["title"], told["keywords"]) == (CITATION["title"], CITATION["keywords"])
    assert told["description"] == " ".join(CITATION["abstract"].split())
    assert told["license"] == CITATION["license"].lower()
    assert [each["name"] for each in told["creators"]] == [
        each["name"] for each in CITATION["authors"]
    ]
    cited = {row["url"].split("/")[-1] for row in CITATION["references"]}
    assert {row["identifier"].split(":")[-1] for row in told["related_identifiers"]} == cited
