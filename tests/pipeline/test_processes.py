"""Several processes give the bytes of one; a lost one loses only what it had not finished; none is
left behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPT = """
    import sys, time
    from pathlib import Path
    import click, numpy as np, torch
    from torch import nn
    from replicate.pipeline import parallel as processes
    from replicate.__main__ import Group
    from replicate.pipeline.checkpoints import Checkpoints
    from replicate.errors import UserError
    from replicate.sampling import Plan, Setting, Space, assemble, walk

    @click.group(cls=Group)
    def main():
        pass

    @main.command()
    @click.argument("out", type=click.Path(path_type=Path))
    @click.argument("count", type=int)
    @click.argument("pause", type=float)
    @click.argument("way")
    def work(out, count, pause, way):
        plan = Plan(20.0, batch_size=4, groups=3, chains=2, burn_in=5, draws=40, restart=way == "restart")
        done = Checkpoints(out, [], ["quadratic"])
        w = nn.Parameter(torch.ones(64, 48))
        x = torch.randn(500, 48, generator=torch.Generator().manual_seed(0))

        def loss(index_B):
            time.sleep(pause)
            return 0.5 * ((x[index_B] @ (w - 1).t()) ** 2).sum(-1)

        processes.start(count)
        with processes.world("test") as world:
            if way == "fail":
                raise UserError("weights: not there; fetch them")
            sys.stdout.write(f"started {world.rank} {world.size} {torch.get_num_threads()}\\n"); sys.stdout.flush()
            if way == "late":
                time.sleep(3 * world.rank)
            mine = world.share(plan.missing(done.keys()))
            order, noise = lambda g: np.random.default_rng(g).permutation(500), lambda g, c: 10 * g + c
            tell = lambda steps=1, note="": None
            start, setting = np.zeros(500, np.float32), Setting("sgld", 1e-3)
            walk(Space([w]), loss, start, setting, plan, mine, order=order, noise=noise, advance=tell, done=done)
        if world.rank == 0:
            np.save(out / "trace.npy", assemble(plan, done).loss.values)

    main()
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "WORLD_SIZE",
        "RANK",
        "LOCAL_RANK",
        "MASTER_ADDR",
        "MASTER_PORT",
        "REPLICATE_PARENT",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    file = tmp_path / "script.py"
    file.write_text(textwrap.dedent(SCRIPT))
    return file


def launch(
    script: Path,
    out: Path,
    count: int,
    pause: float = 0.0,
    way: str = "restart",
    environment: dict[str, str] | None = None,
) -> subprocess.Popen[str]:
    out.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, str(script), "work", str(out), str(count), str(pause), way],
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


@pytest.mark.parametrize("way", ["restart", "go on"])
def test_the_bytes_do_not_depend_on_the_number_of_processes(
    script: Path, tmp_path: Path, way: str
) -> None:
    found = []
    for count in (1, 2, 3):
        out = finish(launch(script, tmp_path / str(count), count, way=way))
        assert sorted(line.split()[1:] for line in out.splitlines()) == [
            [str(rank), str(count), "1"] for rank in range(count)
        ]
        found.append((tmp_path / str(count) / "trace.npy").read_bytes())
    assert found[0] == found[1] == found[2]


def test_a_lost_process_loses_only_what_it_had_not_finished(script: Path, tmp_path: Path) -> None:
    """The second process is killed in the midst of its work: the first ends with one line, and the
    next run does only what is missing.
    """
    whole = tmp_path / "whole"
    finish(launch(script, whole, 1))
    broken = tmp_path / "broken"
    parent = launch(script, broken, 2, pause=0.01)
    assert parent.stdout is not None
    parent.stdout.readline()
    while len(list(broken.glob("*/chain-*"))) < 2:
        time.sleep(0.05)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    assert len(children) == 1
    os.kill(int(children[0]), signal.SIGKILL)
    _, err = parent.communicate(timeout=120)
    assert parent.returncode == 2
    assert "error: test: a process was lost" in err
    kept = {path.name: path.stat().st_mtime_ns for path in broken.glob("*/chain-*")}
    assert {"chain-0-0", "chain-1-0", "chain-2-0"} <= set(kept)  # the first process's share
    finish(launch(script, broken, 2))
    assert (broken / "trace.npy").read_bytes() == (whole / "trace.npy").read_bytes()
    assert kept == {
        path.name: path.stat().st_mtime_ns for path in broken.glob("*/chain-*") if path.name in kept
    }


def test_a_mistake_that_all_processes_meet_is_told_once(script: Path, tmp_path: Path) -> None:
    parent = launch(script, tmp_path / "out", 3, way="fail")
    _, err = parent.communicate(timeout=120)
    assert parent.returncode == 2
    assert err.splitlines() == ["error: weights: not there; fetch them"]


def test_no_process_outlives_the_first(script: Path, tmp_path: Path) -> None:
    parent = launch(script, tmp_path / "out", 2, pause=1.0)
    assert parent.stdout is not None
    parent.stdout.readline()
    child = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()[0]
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or " Z " in Path(f"/proc/{child}/stat").read_text():
            return
        time.sleep(0.1)
    pytest.fail("the second process is still there 10 s later")


def test_a_world_that_another_launcher_made_is_joined(script: Path, tmp_path: Path) -> None:
    """As by `accelerate launch` on several machines: the environment names the ranks, and nothing
    more is started.
    """
    finish(launch(script, tmp_path / "one", 1))
    common = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(29500 + os.getpid() % 1000),
    }
    places = [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    ranks = [launch(script, tmp_path / "out", 8, environment=place) for place in places]
    assert ["".join(finish(rank)).split()[1:] for rank in ranks] == [
        ["0", "2", "1"],
        ["1", "2", "1"],
    ]
    assert (tmp_path / "out" / "trace.npy").read_bytes() == (
        tmp_path / "one" / "trace.npy"
    ).read_bytes()


def test_a_process_that_comes_late_does_its_share_of_what_was_dealt(
    script: Path, tmp_path: Path
) -> None:
    """When it looks what is missing, the first one's chains would be done, were they not dealt
    together: then some would be nobody's.
    """
    finish(launch(script, tmp_path / "late", 2, way="late"))
    finish(launch(script, tmp_path / "plain", 1, way="late"))
    assert (tmp_path / "late" / "trace.npy").read_bytes() == (
        tmp_path / "plain" / "trace.npy"
    ).read_bytes()
