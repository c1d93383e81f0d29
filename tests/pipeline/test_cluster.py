"""The recipes of docs/how-to/cluster.md, as far as one machine can try them."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from replicate.pipeline.config.schema import Machine
from replicate.pipeline.parallel import Engine
from replicate.pipeline.stages.calibrate import CalibrationUnit
from replicate.validation.cases import REPEATED, Job
from tests.conftest import ROOT
from tests.pipeline.test_parallel import content, workers_of

PAGE = (ROOT / "docs" / "how-to" / "cluster.md").read_text(encoding="utf-8")
PORT = 18790
ADDRESS = f"tcp://127.0.0.1:{PORT}"
CHAINS = 16
FAKES = {  # start what they are given as processes of this machine, and note their ids
    "sbatch": """
for each; do
    case $each in
        --array=1-*) jobs=${each#--array=1-} ;;
        --wrap=*) command=${each#--wrap=} ;;
    esac
done
for job in $(seq "$jobs"); do ssh node "$command"; done""",
    "ssh": 'setsid sh -c "$2" >/dev/null 2>&1 & echo $! >>"$JOBS"',
    "hostname": "echo 127.0.0.1",
}


def recipe(heading: str) -> str:
    """The lines of a section's first block of commands."""
    found = re.search(rf"## {heading}\n.*?```bash\n(.*?)```", PAGE, re.DOTALL)
    assert found, heading
    return found[1]


def chains(root: Path) -> list[CalibrationUnit]:
    """Real chains of a small target."""
    jobs = [Job(REPEATED.name, repeat=i) for i in range(CHAINS)]
    return [CalibrationUnit(root, "calibrate", job, 7, 2, 1) for job in jobs]


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[list[int]]:
    """The processes that a fake `sbatch` and a fake `ssh` started for the page's own lines: a
    scheduler, and two jobs of four workers each.
    """
    (tmp_path / "bin").mkdir()
    for name, script in FAKES.items():
        file = tmp_path / "bin" / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
    python = Path(sys.executable).parent
    given = {"PATH": f"{tmp_path}/bin:{python}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    given |= {"JOBS": str(tmp_path / "jobs")}
    lines = recipe("SLURM") + recipe("ssh")
    for on_the_page, here in {
        "8786": str(PORT),
        "--array=1-8": "--array=1-1",
        "for host in node1 node2": "for host in node1",
        "--workers 1": "--workers 4 --host 127.0.0.1",
        ".venv/bin/python -m replicate worker": "python -m replicate worker --workers 4",
    }.items():
        assert on_the_page in lines, on_the_page
        lines = lines.replace(on_the_page, here)
    kept = [line for line in lines.splitlines() if "--scheduler" not in line]
    shell = subprocess.Popen(
        ["bash", "-c", "\n".join([*kept, "wait"])],
        cwd=ROOT,
        env=os.environ | given,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    end = time.monotonic() + 60
    while not (tmp_path / "jobs").exists() or len((tmp_path / "jobs").read_text().split()) < 2:
        assert time.monotonic() < end
        time.sleep(0.1)
    found = [int(pid) for pid in (tmp_path / "jobs").read_text().split()]
    yield found
    for group in (*found, shell.pid):
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def test_eight_workers_that_are_killed_at_random_give_the_bytes_of_one_process(
    jobs: list[int], tmp_path: Path
) -> None:
    """Two worker processes are killed, which their jobs start again, and then a whole job."""
    with Engine(Machine(workers=1)) as engine:
        engine.run(chains(tmp_path / "alone"), "alone")
    root, rng = tmp_path / "cluster", random.Random(7)
    left: list[int] = []  # chains that were not finished when something was killed

    def kill() -> None:
        for what in ("worker", "worker", "job"):
            before = len(list(root.rglob("calibrate/[!.]*")))
            while len(list(root.rglob("calibrate/[!.]*"))) <= before:
                time.sleep(0.02)
            job = rng.choice(jobs)
            if what == "job":
                os.killpg(job, signal.SIGKILL)
            else:
                rng.choice(workers_of(job)).kill()
            left.append(CHAINS - len(list(root.rglob("calibrate/[!.]*"))))

    with Engine(Machine(scheduler=ADDRESS)) as engine:
        engine._connected().wait_for_workers(8, timeout=120)
        thread = threading.Thread(target=kill)
        thread.start()
        engine.run(chains(root), "cluster")
        thread.join()
    assert len(left) == 3
    assert min(left) > 0
    found, alone = content(root), content(tmp_path / "alone")
    assert {name: found[name] for name in alone} == alone
    unfinished = {*found} - {*alone}  # a worker was killed while it wrote
    assert all(name.startswith(".tmp") for name in unfinished)


def test_the_manifest_of_kubernetes_starts_what_the_other_recipes_start() -> None:
    text = (ROOT / "container" / "cluster.yaml").read_text(encoding="utf-8")
    found = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(text)}
    service = found["Service", "scheduler"]["spec"]
    (port,) = service["ports"]
    pods = {name: found["Deployment", name]["spec"]["template"] for name in ("scheduler", "worker")}
    assert service["selector"].items() <= pods["scheduler"]["metadata"]["labels"].items()
    commands = {name: pod["spec"]["containers"][0]["args"] for name, pod in pods.items()}
    assert commands["scheduler"] == ["dask", "scheduler", "--port", str(port["port"])]
    address = f"tcp://scheduler:{port['port']}"
    assert commands["worker"] == ["python", "-m", "replicate", "worker", address, "--workers", "1"]
    for pod in pods.values():
        (volume,), (container,) = pod["spec"]["volumes"], pod["spec"]["containers"]
        (mount,) = container["volumeMounts"]
        assert (mount["name"], mount["mountPath"]) == (volume["name"], "/work")
        assert container["image"] == "replication"
        claim = found["PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]]
        assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
