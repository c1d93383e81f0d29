"""The whole way, in small: from reviews to the report by DVC, offline, without a git identity."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest
import yaml

from tests.conftest import ROOT, inherited

pytestmark = pytest.mark.slow
MODELS = ("demo-15k", "demo-llama-60k")
COMPUTED = ("calibrate", "coverage")
RESULTS = tuple(f"results/{study}/" for study in ("sizes", "demo", "control", "paper"))
ALREADY = tuple(f"results/control/{name}.json" for name in ("calibration", "controls", "coverage"))


def tiny(params: dict[str, Any]) -> dict[str, Any]:
    """The demo study with one model a family, each stage in seconds; the others as they are."""
    params["corpora"]["shorts"]["reviews"] = 300
    params["tokenizers"]["shorts"]["vocabulary"] = 400
    params["calibration"]["demo"] |= {"targets": ["quadratic"]}
    params["training"] |= {"steps": 20, "check": 5, "batch_size": 16}
    params["baseline"]["gradient_examples"] = 64
    short = {"shuffles": 2, "burn_in": 2, "draws": 8}
    formats = {"models": ["demo-llama-60k"], "shuffles": 2, "burn_in": 2, "draws": 4}
    formats["restricted"] = ["float32", "bfloat16", "int8", "nf4"]
    formats["full"] = ["float32", "dequantised-float32", "dequantised"]
    params["studies"]["demo"]["quantisation"] |= formats
    for name, model in zip(("demo", "demo-llama"), MODELS, strict=True):
        family = params["families"][name]
        family["models"] = {model: family["models"][model]}
        family["sampling"] |= short | {"batch_size": 8, "chains": 2, "burn_in": 3}
        family["transfer"] |= short | {"models": [model]}
        family["original"] |= short | {"models": [model]}
        family["search"] |= {"chains": 2, "burn_in": 2, "draws": 4}
        family["search"]["tpe"] |= {"trials": 2, "batch": 2}
        grid = {"localization": [100.0], "weight_decay": [0.0], "bounding_box": [None]}
        family["search"]["sgld"] |= grid | {"lr": [1e-4, 1e-3]}
    return params


def clone(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Commits there what git tracks here, with other parameters, and without results of studies.

    The whole calibration's results stay: it takes minutes.
    """
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        left_out = name.startswith(("dvc.lock", "data/kept/", *RESULTS))
        if (not left_out or name in ALREADY) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text(encoding="utf-8"))
    lock["stages"] = {f"{s}@control": lock["stages"][f"{s}@control"] for s in COMPUTED}
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock))
    # through JSON, so that families share no block that one of them changes
    given = json.dumps(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")))
    params = change(json.loads(given))
    text = json.dumps(params, indent=1)  # JSON is YAML; 1e-4 must have a point to be a number
    (folder / "params.yaml").write_text(re.sub(r"(?<![\d.])(\d+)e-", r"\1.0e-", text))
    (folder / "home").mkdir()
    run(folder, "git", "init", "-q")
    commit(folder, "tiny")


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


def commit(folder: Path, message: str) -> None:
    run(folder, "git", "add", "-A")
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    run(folder, "git", *identity, "commit", "-qm", message)


def results(folder: Path, name: str) -> Any:
    return json.loads((folder / "results" / "demo" / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clone")
    clone(folder, tiny)
    return folder


@pytest.fixture(scope="module")
def finished(project: Path) -> Path:
    run(project, "dvc", "repro", "demo")
    # by hand: DVC wants the data of these studies, which were not run
    for study in ("control", "paper", "pythia"):
        run(project, "python", "-m", "replicate", "collect", study)
    reading = ("published", "reference", "read@control", "read@paper", "read@pythia", "report")
    run(project, "dvc", "repro", "--single-item", *reading)
    commit(project, "results")
    return project


def test_every_result_follows_its_schema(finished: Path) -> None:
    for schema in (finished / "results" / "schemas").iterdir():
        name = schema.name.replace(".schema", "")
        files = list((finished / "results").glob(f"**/{name}"))
        assert files, f"nothing writes {name}"
        for file in files:
            jsonschema.validate(json.loads(file.read_text()), json.loads(schema.read_text()))


def test_what_was_run_is_in_the_results_and_nothing_else(finished: Path) -> None:
    estimates = results(finished, "estimates")
    assert {row["model"] for row in estimates} == set(MODELS)
    assert all(len(row["shuffles"]) == 2 and row["chains"] == 4 for row in estimates)
    restricted = next(row for row in estimates if row["model"] == "demo-llama-60k")
    assert restricted["sampled_parameters"] < 0.7 * restricted["parameters"]
    assert results(finished, "refused") == []
    assert json.loads((finished / "results/paper/estimates.json").read_text()) == []
    report = (finished / "report.html").read_text(encoding="utf-8")
    assert "gpt2-xl" in report
    assert "not run" in report


def test_weight_formats_are_compared_like_with_like(finished: Path) -> None:
    """The same parameters move in every restricted format, and everything in every full one."""
    rows = results(finished, "quantisation")
    restricted = {row["weights"]: row for row in rows if row["moved"] == "restricted"}
    full = {row["weights"]: row for row in rows if row["moved"] == "full"}
    assert set(restricted) == {"float32", "bfloat16", "int8", "nf4"}
    assert len({row["sampled_parameters"] for row in restricted.values()}) == 1
    assert len({row["sampled_parameters"] for row in full.values()}) == 1
    assert restricted["nf4"]["sampled_parameters"] < full["float32"]["sampled_parameters"]
    assert restricted["float32"]["rise"] == full["float32"]["rise"] == 0
    assert restricted["nf4"]["rise_error"] > restricted["int8"]["rise_error"] > 0
    nf4 = restricted["nf4"]["loss"]
    assert full["dequantised-float32"]["loss"] == pytest.approx(nf4, abs=1e-5)
    assert all(len(row["changes"]) == len(row["shuffles"]) == 2 for row in rows)


def test_a_second_run_has_nothing_to_do(finished: Path) -> None:
    assert "Running stage" not in run(finished, "dvc", "repro", "demo").stdout
    assert run(finished, "git", "status", "--porcelain").stdout == ""


def test_a_run_that_is_killed_goes_on_with_other_workers_to_the_same_bytes(finished: Path) -> None:
    before, params = (finished / "dvc.lock").read_bytes(), (finished / "params.yaml").read_text()
    shutil.rmtree(finished / "cache")
    repro = ["dvc", "repro", "--force", "--single-item"]
    process = subprocess.Popen([*repro, "search@demo"], cwd=finished, env=environment(finished))
    while not (units := list((finished / "cache").rglob("search/[!.]*"))):
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert family
    assert not psutil.wait_procs(family, timeout=10)[1]
    written = {unit: unit.stat().st_mtime_ns for unit in units}
    changed = params.replace('"workers": "auto"', '"workers": 4')
    assert changed != params
    (finished / "params.yaml").write_text(changed)
    try:
        run(finished, *repro, "search@demo", "estimate@demo", "original@demo-llama")
    finally:
        (finished / "params.yaml").write_text(params)
    assert (finished / "dvc.lock").read_bytes() == before
    assert {unit: unit.stat().st_mtime_ns for unit in units} == written


def test_metrics_show_the_estimates(finished: Path) -> None:
    shown = json.loads(run(finished, "dvc", "metrics", "show", "--json").stdout)
    models = next(iter(shown.values()))["data"]["results/demo/metrics.json"]["data"]
    assert set(models) == set(MODELS)


def test_results_that_are_rerun_are_reproduced(finished: Path) -> None:
    answer = run(finished, "python", "-m", "replicate", "verify").stdout.splitlines()[-1]
    assert " identical" in answer
    assert "differ" not in answer


def test_a_variant_is_an_experiment(finished: Path) -> None:
    """It reruns what depends on the changed parameter, and nothing else."""
    nbeta = "families.demo.sampling.nbeta=10.0"
    done = run(finished, "dvc", "exp", "run", "--name", "warm", "-S", nbeta, "demo")
    assert "Running stage 'estimate@demo'" in done.stdout
    assert "Running stage 'pretrain" not in done.stdout
    assert "Running stage 'estimate@demo-llama'" not in done.stdout
    assert "warm" in run(finished, "dvc", "exp", "show", "--csv").stdout
    assert {row["nbeta"] for row in results(finished, "estimates")} == {10.0, 30.0}
    compared = run(finished, "python", "-m", "replicate", "compare", check=False)
    assert "not comparable" in compared.stdout
    run(finished, "git", "stash")


def test_a_stage_that_cannot_run_here_says_why_and_leaves_nothing(project: Path) -> None:
    def files() -> list[Path]:
        found = (path for path in project.rglob("*") if path.is_file())
        ignored = {".dvc", ".git", "logs", "__pycache__"}
        return sorted(path for path in found if not ignored & set(path.parts))

    before = files()
    hub = run(project, "dvc", "repro", "extract@gpt2", check=False)
    assert hub.returncode != 0
    assert "error: stanfordnlp/imdb@e6281661" in hub.stdout + hub.stderr
    assert "Traceback" not in hub.stdout + hub.stderr
    assert files() == before
    last = json.loads((project / "logs" / "runs.jsonl").read_text().splitlines()[-1])
    assert (last["stage"], last["argument"], last["ended"]) == ("extract", "gpt2", "error")
