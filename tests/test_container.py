"""The container's entrypoint, its copy of the project, and the set-up that it shares with `make`;
`container/selftest` builds and tries the image itself, `container/gpu` what needs a GPU.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import pytest
import torch

from tests.conftest import ROOT

NOBODY = 54321


def copied(path: str) -> bool:
    """Whether the image's copy of the project has a path: the last pattern that fits decides."""
    out = False
    parts = [path, *map(str, PurePosixPath(path).parents)]
    for pattern in (ROOT / ".dockerignore").read_text().splitlines():
        bare = pattern.removeprefix("!")
        if pattern and pattern[0] != "#" and any(fnmatch(part, bare) for part in parts):
            out = not pattern.startswith("!")
    return not out


def test_the_images_copy_of_the_project_is_what_git_tracks_and_git_without_its_settings() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    assert [path for path in listed.stdout.splitlines() if not copied(path)] == []
    assert all(map(copied, (".git/HEAD", ".git/index", ".git/objects/pack/1", ".git/refs/heads/1")))
    made = ".venv/bin/python data/mini/windows/1 cache/estimate/1 logs/1 .dvc/cache/files/1"
    settings = ".git/config .dvc/config.local paper/main.pdf tmp/home/1 replicate/__pycache__/1.pyc"
    assert not any(map(copied, (made + " " + settings).split()))


@pytest.fixture
def work() -> Iterator[Path]:
    """A work folder of a user that the machine does not know, where there is root to make one."""
    if sys.platform != "linux":
        pytest.skip("the image's entrypoint needs Linux")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / ".dvc" / "tmp").mkdir(parents=True)
        if os.geteuid() == 0:
            for path in (Path(folder), *Path(folder).rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        yield Path(folder)


def enter(work: Path, *command: str, **environment: str) -> subprocess.Popen[str]:
    """`command` behind the image's entrypoint."""
    entrypoint = shutil.copy(ROOT / "container" / "entrypoint", work / "entrypoint")
    unknown = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    values = {"PATH": "/usr/bin:/bin", "VENV": "/opt/venv"} | environment
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    start = ["sh", entrypoint, *command]
    return subprocess.Popen(start, cwd=work, env=values, text=True, **pipes, **unknown)


def test_an_unknown_user_without_a_writable_tmp_gets_a_home_a_name_and_a_tmp_in_the_work_folder(
    work: Path,
) -> None:
    told = 'echo "$HOME"; echo "$TMPDIR"; echo "$USER"'
    out, err = enter(work, "sh", "-c", told, TMPDIR="/proc", HOME="/").communicate(timeout=60)
    home, tmp, user = out.splitlines()
    assert (Path(home), Path(tmp)) == (work / "tmp" / "home", work / "tmp")
    assert Path(home).is_dir()
    assert user
    assert err == ""


def test_where_nothing_can_be_written_the_entrypoint_says_to_mount_a_folder(work: Path) -> None:
    (work / "tmp").write_text("")  # no folder can be made there
    process = enter(work, "true", TMPDIR="/proc")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    remedy = f"mount a folder at {work} that it can write to"
    assert re.fullmatch(rf"entrypoint: uid \d+ can write nowhere; {remedy}\n", err)


def held(work: Path, command: str, length: int | None = None) -> Path:
    """What DVC leaves behind when it is killed while it holds a lock, or while it writes it."""
    lock = work / ".dvc" / "tmp" / "rwlock"
    lock.unlink(missing_ok=True)
    entry = {"write": {"/work/results": {"pid": 1, "cmd": command}}, "read": {}}
    lock.write_text(json.dumps(entry)[:length])
    lock.chmod(0o666)
    return lock


INSIDE, OUTSIDE = "/opt/venv/bin/dvc repro demo", "/home/me/.venv/bin/dvc repro demo"


@pytest.mark.parametrize(
    ("command", "length", "freed"),
    [(INSIDE, None, True), (INSIDE, 9, True), (INSIDE, 0, True), (OUTSIDE, None, False)],
)
def test_a_killed_containers_lock_is_freed_but_not_one_held_outside(
    work: Path, command: str, length: int | None, freed: bool
) -> None:
    lock = held(work, command, length)
    assert enter(work, "true").wait(60) == 0
    assert lock.exists() != freed


def test_a_living_containers_lock_is_not_freed(work: Path) -> None:
    living = enter(work, "sh", "-c", "echo lives; read line")
    assert living.stdout
    assert living.stdout.readline() == "lives\n"
    lock = held(work, INSIDE)
    assert enter(work, "true").wait(60) == 0
    assert lock.exists()
    living.communicate("", timeout=60)
    assert enter(work, "true").wait(60) == 0
    assert not lock.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_what_needs_a_gpu_notes_nothing_where_there_is_none() -> None:
    file = ROOT / "results" / "gpu.json"
    before = file.read_bytes() if file.exists() else None
    environment = os.environ | {"VENV": str(Path(sys.executable).parents[1])}
    command = [ROOT / "container" / "gpu"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    said = "gpu: torch finds no CUDA GPU here; run it on a machine that has one\n"
    assert done.stderr == said
    assert (file.read_bytes() if file.exists() else None) == before


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """An environment that says that the locks of a copy of `requirements/` are installed in it."""
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    ready = tmp_path / "venv" / "ready"
    ready.parent.mkdir()
    names = [f"requirements/{name}.lock" for name in ("base", "cuda")]
    hashes = [hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in names]
    ready.write_text("".join(f"{a} {b}\n" for a, b in zip(hashes, names, strict=True)))
    return ready.parent


def install(venv: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [venv.parent / "requirements" / "install", venv, *arguments]
    environment = os.environ | {"PYTHON": sys.executable}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_an_environment_is_ready_by_what_its_locks_say_not_by_when_they_were_written(
    environment: Path,
) -> None:
    (environment.parent / "requirements" / "base.lock").touch()
    done = install(environment, "runtime")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path.name for path in environment.iterdir()] == ["ready"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize(
    ("lock", "arguments"), [("base", ["runtime"]), ("cuda", ["runtime"]), ("dev", [])]
)
def test_an_image_whose_packages_are_not_the_locked_ones_asks_to_be_built_again(
    environment: Path, lock: str, arguments: list[str]
) -> None:
    with (environment.parent / "requirements" / f"{lock}.lock").open("a") as lines:
        lines.write("# changed\n")
    environment.chmod(0o555)
    done = install(environment, *arguments)
    assert done.returncode == 2
    assert f"does not hold requirements/{lock}.lock as it is here" in done.stderr
