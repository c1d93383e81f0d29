"""The whole way, in small: from reviews to figures by DVC, offline, without a git identity."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.conftest import ROOT, inherited

KEPT = ("mini-34k", "mini-llama-200k")


def tiny(params: dict[str, Any]) -> dict[str, Any]:
    """The demo study with one model a family, each stage in seconds; the paper study as it is."""
    params["corpora"]["films"]["reviews"] = 300
    params["tokenizers"]["films"]["vocabulary"] = 400
    params["training"] |= {"steps": 20, "check": 5, "batch_size": 16}
    params["baseline"]["gradient_examples"] = 64
    params["models"] = {
        name: model
        for name, model in params["models"].items()
        if name in KEPT or model["source"] == "hub"
    }
    for family in ("mini", "mini-llama"):
        params["families"][family]["sampling"] |= {
            "batch_size": 8,
            "groups": 2,
            "chains": 2,
            "burn_in": 3,
            "draws": 8,
        }
        mine = [name for name in KEPT if params["models"][name]["family"] == family]
        for section in ("transfer", "original"):
            params["families"][family][section] |= {
                "models": mine,
                "groups": 2,
                "burn_in": 2,
                "draws": 8,
            }
        search = params["families"][family]["search"] | {"chains": 2, "burn_in": 2, "draws": 4}
        params["studies"]["demo"]["quantisation"] |= {
            "models": ["mini-llama-200k"],
            "groups": 2,
            "burn_in": 2,
            "draws": 4,
        }
        search["tpe"] |= {"trials": 2, "batch": 2}
        search["sgld"] |= {
            "lr": [1e-4, 1e-3],
            "localization": [100.0],
            "weight_decay": [0.0],
            "bounding_box": [None],
        }
        params["families"][family]["search"] = search
    return params


def clone(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]] | None) -> None:
    """Puts there what git tracks here, committed, with other parameters if need be; a home without
    a git identity.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (
            name != "dvc.lock"
            and not name.startswith(("results/demo", "results/paper"))
            and (ROOT / name).is_file()
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text(encoding="utf-8"))
    lock["stages"] = {
        "calibrate": lock["stages"]["calibrate"]
    }  # minutes of work, and the same in small: its results stand in git
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock))
    if change is not None:
        params = change(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")))
        text = re.sub(
            r"(?<![\d.])(\d+)e-", r"\1.0e-", json.dumps(params, indent=1)
        )  # JSON is YAML, and keeps 1e-4 a number
        (folder / "params.yaml").write_text(text)
    (folder / "home").mkdir()
    run(folder, "git", "init", "-q")
    run(folder, "git", "add", "-A")
    run(
        folder,
        "git",
        "-c",
        "user.name=n",
        "-c",
        "user.email=e@example.org",
        "commit",
        "-qm",
        "tiny",
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clone")
    clone(folder, tiny)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Without what the caller has set for git and DVC, and without a hub."""
    return inherited() | {
        "HOME": str(folder / "home"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "PYTHONWARNINGS": "ignore",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


def run(folder: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def finished(project: Path) -> Path:
    run(project, "dvc", "repro", "demo")
    run(project, "git", "add", "-A")
    run(
        project,
        "git",
        "-c",
        "user.name=n",
        "-c",
        "user.email=e@example.org",
        "commit",
        "-qm",
        "results",
    )
    return project


def test_every_result_is_there_and_follows_its_schema(finished: Path) -> None:
    for schema in (finished / "results" / "schemas").iterdir():
        name = schema.name.replace(".schema", "")
        files = [
            folder / name
            for folder in (finished / "results", *(finished / "results").iterdir())
            if (folder / name).is_file()
        ]
        assert files, f"nothing writes {name}"
        for file in files:
            rows = json.loads(file.read_text())
            jsonschema.validate(rows, json.loads(schema.read_text()))
            assert rows, file
    estimates = json.loads((finished / "results" / "demo" / "estimates.json").read_text())
    assert {row["model"] for row in estimates} == set(KEPT)
    assert {row["status"] for row in estimates} == {"run"}
    assert all(len(row["groups"]) == 2 and row["chains"] == 4 for row in estimates)
    restricted = next(row for row in estimates if row["model"] == "mini-llama-200k")
    assert restricted["sampled_parameters"] < 0.7 * restricted["parameters"]


def test_weight_formats_are_compared_like_with_like(finished: Path) -> None:
    """The same parameters move in every restricted format, and everything in every full one; what
    changes is taken against float32.
    """
    rows = json.loads((finished / "results" / "demo" / "quantisation.json").read_text())
    restricted = {row["weights"]: row for row in rows if row["moved"] == "restricted"}
    full = {row["weights"]: row for row in rows if row["moved"] == "full"}
    assert set(restricted) == {"float32", "bfloat16", "int8", "nf4"}
    assert (
        len({row["sampled_parameters"] for row in restricted.values()})
        == len({row["sampled_parameters"] for row in full.values()})
        == 1
    )
    assert restricted["nf4"]["sampled_parameters"] < full["float32"]["sampled_parameters"]
    assert restricted["float32"]["rise"] == full["float32"]["rise"] == 0
    assert restricted["nf4"]["rise_error"] > restricted["int8"]["rise_error"] > 0
    assert full["dequantised-float32"]["loss"] == pytest.approx(restricted["nf4"]["loss"], abs=1e-5)
    for row in rows:
        assert len(row["changes"]) == len(row["groups"]) == 2


def test_figures_and_tables_are_there(finished: Path) -> None:
    generated = finished / "paper" / "generated" / "demo"
    assert {path.name for path in (generated / "figures").glob("*.png")} == {
        f"{name}.png"
        for name in (
            "llc",
            "original",
            "quantisation",
            "transfer",
            "search-mini",
            "search-mini-llama",
            *(f"diagnostics-{model}" for model in KEPT),
        )
    }
    assert (
        finished / "paper" / "generated" / "reference" / "figures" / "calibration.png"
    ).is_file()
    assert r"\setresult{demo/mini-34k/llc}" in (generated / "tables" / "values.tex").read_text()


def test_a_second_run_has_nothing_to_do(finished: Path) -> None:
    done = run(finished, "dvc", "repro", "demo")
    assert "Running stage" not in done.stdout
    assert run(finished, "git", "status", "--porcelain").stdout == ""


def test_the_same_inputs_give_the_same_bytes(finished: Path) -> None:
    before = (finished / "dvc.lock").read_bytes()
    run(finished, "dvc", "repro", "--force", "--single-item", "estimate@mini-34k")
    run(finished, "dvc", "repro", "--force", "--single-item", "search@mini")
    assert (finished / "dvc.lock").read_bytes() == before


def test_metrics_show_the_estimates(finished: Path) -> None:
    shown = json.loads(run(finished, "dvc", "metrics", "show", "--json").stdout)
    models = next(iter(shown.values()))["data"]["results/demo/metrics.json"]["data"]
    assert set(models) == set(KEPT)


def test_a_variant_is_an_experiment(finished: Path) -> None:
    """It reruns what depends on the changed parameter, and nothing else."""
    done = run(
        finished,
        "dvc",
        "exp",
        "run",
        "--name",
        "warm",
        "-S",
        "families.mini.sampling.nbeta=10.0",
        "demo",
    )
    assert "Running stage 'estimate@mini-34k'" in done.stdout
    assert "Running stage 'pretrain" not in done.stdout
    assert "Running stage 'estimate@mini-llama-200k'" not in done.stdout
    assert "warm" in run(finished, "dvc", "exp", "show", "--csv").stdout
    run(finished, "git", "stash")


def test_a_stage_that_cannot_run_here_stops_at_once_and_says_why(project: Path) -> None:
    """It leaves a line in the run log, and nothing else."""

    def files() -> list[Path]:
        return sorted(
            path for path in project.rglob("*") if not {".dvc", ".git", "logs"} & set(path.parts)
        )

    before = files()
    hub = run(project, "dvc", "repro", "extract@gpt2", check=False)
    assert hub.returncode != 0
    assert (
        "error: stanfordnlp/imdb@e6281661: not in the local cache, and the hub cannot be reached"
        in hub.stdout + hub.stderr
    )
    assert files() == before
    last = json.loads((project / "logs" / "runs.jsonl").read_text().splitlines()[-1])
    assert (last["stage"], last["argument"], last["ended"]) == ("extract", "gpt2", "error")
