"""Set-up installs what is locked where it says, whatever the user's own settings of pip are."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project whose locks are two packages of one module, in a folder of wheels."""
    project = tmp_path / "a project"
    (project / "requirements").mkdir(parents=True)
    shutil.copy(ROOT / "requirements" / "install", project / "requirements")
    for lock, name in (("base", "tiny"), ("cpu", "tinier")):
        wheel = tmp_path / f"{name}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            info = f"{name}-1.0.dist-info"
            archive.writestr(f"{name}.py", "")
            archive.writestr(
                f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
            )
            archive.writestr(
                f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr(f"{info}/RECORD", "")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        text = f"{name}==1.0 \\\n    --hash=sha256:{digest}\n"
        (project / "requirements" / f"{lock}.lock").write_text(text)
    (project / "requirements" / "cuda.lock").write_text("none==1.0\n")
    return project


def install(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    wheels = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder.parent), "PYTHON": sys.executable}
    return subprocess.run(
        [folder / "requirements" / "install", "an environment", "runtime"],
        env=os.environ | wheels | {"TORCH": "cpu", "PIP_CONFIG_FILE": os.devnull} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.fault("D13")
@pytest.mark.parametrize(
    "settings",
    [
        {"PIP_TARGET": "elsewhere"},
        {"PIP_PREFIX": "elsewhere"},
        {"PIP_DRY_RUN": "1"},
        {"PYTHONPATH": "."},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_variables_of_pip_and_python_do_not_lead_set_up_astray(
    folder: Path, settings: dict[str, str]
) -> None:
    (folder / "tiny.py").write_text("raise SystemExit('the wrong one')")
    done = install(folder, **settings)
    assert (done.returncode, done.stderr) == (0, "")
    packages = next((folder / "an environment" / "lib").glob("*/site-packages"))
    assert {"tiny.py", "tinier.py"} <= {path.name for path in packages.iterdir()}
    assert not (folder / "elsewhere").exists()


def test_the_package_is_found_from_any_folder_and_a_home_that_is_not_there_is_replaced(
    folder: Path,
) -> None:
    (folder / "replicate").mkdir()
    (folder / "replicate" / "__init__.py").write_text("HERE = True")
    assert install(folder).returncode == 0
    python = folder / "an environment" / "bin" / "python"
    code = "import replicate; assert replicate.HERE"
    subprocess.run([python, "-c", code], cwd=folder.parent, env={}, check=True)
    shutil.copy(ROOT / "Makefile", folder)
    shown = "home: ; @$(WITH) sh -c 'echo $$HOME'"
    for home, expected in (("/nowhere", folder / "tmp" / "home"), (str(folder), folder)):
        told = subprocess.run(
            ["make", "-s", f"VENV={python.parents[1].name}", f"--eval={shown}", "home"],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": home},
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout.strip() == str(expected)


@pytest.mark.fault("D13")
def test_what_is_not_installed_is_never_called_ready(folder: Path) -> None:
    """A file of settings is pip's own business, so what came of it is looked at."""
    settings = folder.parent / "pip.conf"
    settings.write_text("[install]\ntarget = elsewhere\n")
    for _ in range(2):
        done = install(folder, PIP_CONFIG_FILE=str(settings))
        assert done.returncode == 2
        assert "did not put tiny 1.0 into" in done.stderr
        assert "pip config list" in done.stderr
    assert install(folder).returncode == 0


@pytest.mark.fault("D14")
def test_a_download_without_git_is_told_so_before_anything_is_installed(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    done = subprocess.run(
        ["make", "demo"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "git init" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Makefile"]


@pytest.mark.fault("D14")
def test_line_ends_survive_autocrlf(tmp_path: Path) -> None:
    clone = [
        "git",
        "-c",
        "core.autocrlf=true",
        "clone",
        "-q",
        "--depth=1",
        f"file://{ROOT}",
        "clone",
    ]
    subprocess.run(clone, cwd=tmp_path, check=True)
    for name in ("requirements/install", "container/entrypoint", "Makefile", "params.yaml"):
        assert b"\r" not in (tmp_path / "clone" / name).read_bytes(), name
