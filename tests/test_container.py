"""What can be held against the image's parts without building it; `container/selftest` builds and
tries it.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import pytest

from replicate.pipeline.stages import paper

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
NOBODY = 54321
LOCKS = ("base", "dev", "cuda", "benchmarks")


def locked(name: str) -> dict[str, str]:
    """A lock's packages and what it says of each; a package for which a marker chooses one of two
    versions, of both.
    """
    blocks: dict[str, str] = {}
    for block in re.split(r"\n(?=[a-z])", (ROOT / "requirements" / f"{name}.lock").read_text())[1:]:
        package = re.split(r"[=\[ ]", block)[0]
        blocks[package] = blocks.get(package, "") + block
    return blocks


@pytest.mark.parametrize("name", LOCKS)
def test_each_locked_package_is_checked_against_a_hash(name: str) -> None:
    for package, block in locked(name).items():
        assert (
            len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", block))
            >= len(re.findall(rf"(?m)^{package}\b.*==", block))
            > 0
        )


@pytest.mark.parametrize("name", [*LOCKS, "cpu"])
def test_no_lock_names_a_host(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    assert "://" not in text
    assert {option for option in re.findall(r"--[a-z-]+", text) if option != "--hash"} == set()


def test_what_only_development_needs_is_not_in_the_runtime_locks() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime = set(locked("base")) | set(locked("cuda"))
    groups = wanted["dependency-groups"]["dev"] + wanted["dependency-groups"]["docs"]
    names = {re.split(r"[=<>\[]", package)[0] for package in groups if isinstance(package, str)}
    assert names <= set(locked("dev"))
    assert runtime & set(locked("dev")) == set()
    assert {
        re.split(r"[=<>\[]", package)[0] for package in wanted["project"]["dependencies"]
    } <= runtime


def test_both_builds_of_torch_have_one_version() -> None:
    torch = re.search(r"torch==([\d.]+)", locked("cuda")["torch"])
    assert torch
    assert f"\ntorch=={torch[1]}+cpu\n" in (ROOT / "requirements" / "cpu.lock").read_text()


def test_the_base_image_is_pinned_by_its_digest_and_every_stage_comes_from_it() -> None:
    assert re.search(r"(?m)^ARG BASE_IMAGE=\S+@sha256:[0-9a-f]{64}$", DOCKERFILE)
    stages = re.findall(r"(?m)^FROM (\S+) AS (\S+)$", DOCKERFILE)
    assert len(stages) == len(re.findall(r"(?m)^FROM", DOCKERFILE))
    known = {"${BASE_IMAGE}"}
    for origin, name in stages:
        assert origin in known
        known.add(name)


def test_the_image_and_the_gate_install_the_latex_that_the_command_names() -> None:
    for file in (DOCKERFILE, (ROOT / ".ci" / "run").read_text()):
        assert paper.PACKAGES in file


def test_the_images_copy_of_the_project_is_what_git_tracks_and_git_itself_without_its_settings() -> (
    None
):
    patterns = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]

    def copied(path: str) -> bool:
        out = False
        for pattern in patterns:  # the last one that fits decides
            if any(
                fnmatch(part, pattern.removeprefix("!"))
                for part in map(str, [PurePosixPath(path), *PurePosixPath(path).parents])
            ):
                out = not pattern.startswith("!")
        return not out

    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\n")[:-1]
    assert [path for path in tracked if not copied(path)] == []
    assert all(
        map(
            copied,
            [".git/HEAD", ".git/index", ".git/objects/pack/pack-1.pack", ".git/refs/heads/main"],
        )
    )
    left_out = [
        ".git/config",
        ".dvc/config.local",
        ".venv/bin/python",
        "data/mini/windows/1",
        "logs/1",
        "replicate/__pycache__/1.pyc",
    ]
    assert [
        path
        for path in [*left_out, ".dvc/cache/files/1", "paper/main.pdf", "tmp/home/1"]
        if copied(path)
    ] == []


@pytest.fixture
def work() -> Iterator[Path]:
    """A work folder of a user that the machine does not know, where there is root to make one."""
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
    pipe = subprocess.PIPE
    return subprocess.Popen(
        ["sh", entrypoint, *command],
        cwd=work,
        env=values,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        **unknown,
    )


linux = pytest.mark.skipif(sys.platform != "linux", reason="the image's entrypoint needs Linux")


@linux
def test_an_unknown_user_without_a_writable_tmp_gets_a_home_a_name_and_a_tmp_in_the_work_folder(
    work: Path,
) -> None:
    out, err = enter(
        work, "sh", "-c", 'echo "$HOME"; echo "$TMPDIR"; echo "$USER"', TMPDIR="/proc", HOME="/"
    ).communicate(timeout=60)
    home, tmp, user = out.splitlines()
    assert (Path(home), Path(tmp)) == (work / "tmp" / "home", work / "tmp")
    assert Path(home).is_dir()
    assert user
    assert err == ""


@linux
def test_where_nothing_can_be_written_the_entrypoint_says_to_mount_a_folder(work: Path) -> None:
    (work / "tmp").write_text("")  # no folder can be made there
    process = enter(work, "true", TMPDIR="/proc")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert re.fullmatch(
        rf"entrypoint: uid \d+ can write nowhere; mount a folder at {work} that it can write to\n",
        err,
    )


def held(work: Path, command: str) -> Path:
    """What DVC leaves behind when it is killed while it holds a lock."""
    lock = work / ".dvc" / "tmp" / "rwlock"
    lock.write_text(
        json.dumps({"write": {"/work/results": {"pid": 1, "cmd": command}}, "read": {}})
    )
    lock.chmod(0o666)
    return lock


@linux
def test_a_killed_containers_lock_is_freed_but_not_one_held_outside(work: Path) -> None:
    lock = held(work, "/opt/venv/bin/dvc repro demo")
    assert enter(work, "true").wait(60) == 0
    assert not lock.exists()
    lock = held(work, "/home/me/.venv/bin/dvc repro demo")
    assert enter(work, "true").wait(60) == 0
    assert lock.exists()


@linux
def test_a_living_containers_lock_is_not_freed(work: Path) -> None:
    living = enter(work, "sh", "-c", "echo lives; read line")
    assert living.stdout
    assert living.stdout.readline() == "lives\n"
    lock = held(work, "/opt/venv/bin/dvc repro demo")
    assert enter(work, "true").wait(60) == 0
    assert lock.exists()
    living.communicate("", timeout=60)
    assert enter(work, "true").wait(60) == 0
    assert not lock.exists()


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """An environment in which the locks of a copy of `requirements/` are installed, so the copy
    believes.
    """
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    ready = tmp_path / "venv" / "ready"
    ready.parent.mkdir()
    for name in ("base", "cuda"):
        lock = tmp_path / "requirements" / f"{name}.lock"
        with ready.open("a") as lines:
            lines.write(
                f"{hashlib.sha256(lock.read_bytes()).hexdigest()} requirements/{name}.lock\n"
            )
    return ready.parent


def install(venv: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [venv.parent / "requirements" / "install", venv, *arguments]
    return subprocess.run(
        command,
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_an_environment_is_ready_by_what_its_locks_say_not_by_when_they_were_written(
    environment: Path,
) -> None:
    (environment.parent / "requirements" / "base.lock").touch()
    before = sorted(path.name for path in environment.iterdir())
    done = install(environment, "runtime")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(path.name for path in environment.iterdir()) == before


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
    told = rf"setup: \S+ does not hold requirements/{lock}\.lock as it is here, and cannot be changed; build the container image"
    assert re.match(told, done.stderr)
