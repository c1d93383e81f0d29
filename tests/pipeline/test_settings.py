"""Stage `settings` measures λ̂ at every setting of a family, and collects what it measures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from replicate.data import traces
from replicate.errors import UserError
from replicate.pipeline import kept, kept_again
from replicate.pipeline.config import Config
from replicate.pipeline.config.sources import SingleEpochModel
from replicate.pipeline.stages import pretrain
from replicate.pipeline.stages import settings as stage
from replicate.study import records
from tests.pipeline import small

MODEL = small.DATA["families"]["sizes"]["models"]["34k"]
TINY = MODEL | {
    "layers": 1,
    "width": 8,
    "heads": 2,
    "steps": 20,
    "seeds": 2,
    "checkpoints": [5, 10],
}
POINT = {"nbeta": 100.0, "localization": 500.0}
AT = [
    POINT,
    POINT | {"radius": "fixed"},  # both are the smallest model, so it is the same posterior
    POINT | {"loss": "last", "models": ["mini-8-2"]},
    POINT | {"text": "sampled", "models": ["mini-8-2"]},
    POINT | {"rescaled": "gain", "models": ["mini-8-2"]},
    POINT | {"checkpoints": True, "models": ["mini-8-1"]},
    {"nbeta": 30.0, "models": ["mini-8-2"]},  # γ is chosen
]


def family(**changes: Any) -> dict[str, Any]:
    """Returns parameters of two trainings of one tiny model, and five kinds of settings."""
    settings = {"precision": 0.9, "budget": 40_000, "chains": 2, "batch_size": 16, "at": AT}
    return {
        "families__mini__models": {"mini-8": TINY},
        "families__mini__search__model": "mini-8-1",
        "families__mini__settings": settings | changes,
        **{f"families__mini__{part}": None for part in ("curve", "original")},
        "families__mini__transfer__models": ["mini-8-1"],
    }


def test_every_setting_has_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = small.configured(**family())
    small.run(config, "extract", "pretrain", "settings")
    small.run(config, "collect", name="demo")
    rows = records.read(Path("results/demo/settings.json"), records.Setting)
    assert {(row.model, row.loss, row.text, row.rescaled, row.step) for row in rows} == {
        ("mini-8-1", "tokens", "corpus", None, None),
        ("mini-8-2", "tokens", "corpus", None, None),
        ("mini-8-2", "last", "corpus", None, None),
        ("mini-8-2", "tokens", "sampled", None, None),
        ("mini-8-2", "tokens", "corpus", "gain", None),
        ("mini-8-1", "tokens", "corpus", None, 5),
        ("mini-8-1", "tokens", "corpus", None, 10),
    }
    assert {(row.size, row.training) for row in rows} == {("mini-8", 1), ("mini-8", 2)}
    assert len({row.llc for row in rows}) == len(rows)
    file = stage.folder(config, stage.units(config, "mini-8-2")[0])
    before = traces.load(file)
    small.run(config, "settings")
    assert traces.load(file).equals(before)
    check_what_is_kept(config, file, rows, capsys)


def test_checkpoints_in_folders_are_measured_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trained = small.configured(**family())
    small.run(trained, "extract", "pretrain")
    own = trained.paths.models("mini") / "mini-8-1"
    at = {step: str(shutil.copytree(own / f"step-{step}", f"own/{step}")) for step in (10, 5)}
    changes = family(at=[POINT]) | {"families__mini__transfer__models": "all"}
    changes |= {"families__mini__models": {"ours": {"source": "checkpoints", "at": at}}}
    changes |= {"families__mini__search__model": "ours-step10"}
    changes |= {"families__mini__sampling__neighbours": "first"}
    config = small.configured(**changes)
    assert config.plan("demo").full.earlier == ("ours-step5",)
    assert list(config.of_neighbours("mini").families["mini"].models) == ["ours-step10"]
    small.run(config, "pretrain", "settings")
    small.run(config, "collect", name="demo")
    rows = records.read(Path("results/demo/settings.json"), records.Setting)
    assert [(row.model, row.size, row.step) for row in rows] == [
        ("ours-step5", "ours", 5),
        ("ours-step10", "ours", 10),
    ]
    first, last = (row.baseline_loss or 0.0 for row in rows)
    assert first > last > 0


def test_in_4_bits_what_stays_unquantised_moves_and_is_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    llama = TINY | {"architecture": "llama", "seeds": 1}
    again = POINT | {"minimised": 3}
    given = family(at=[POINT, again]) | {"families__mini__models": {"mini-8": llama}}
    config = small.configured(**given, families__mini__weights="nf4")
    small.run(config, "extract", "pretrain", "settings")
    trace, trained = (unit.trace() for unit in stage.units(config, "mini-8-1"))
    assert trace.attrs["task"]["weights"] == "nf4"
    matrices = 4 * 8 * 8 + 3 * 8 * 24  # attention, and the three of the gated units
    task = trace.attrs["task"]
    assert task["parameters"] - task["sampled_parameters"] == matrices
    assert trained.attrs["setting"]["minimised"] == 3
    assert trained.attrs["baseline"]["loss"] < trace.attrs["baseline"]["loss"]


def check_what_is_kept(
    config: Config, file: Path, rows: list[records.Setting], capsys: pytest.CaptureFixture[str]
) -> None:
    """What is kept in git is taken without a computation, and gives the same results."""
    kept.keep(config, "mini")
    text = kept.folder(config, "mini").as_posix()
    assert not list(Path(text).rglob("step-*"))
    packed = (Path(text) / "mini-8-2.npz").read_bytes()
    kept.keep(config, "mini")
    assert (Path(text) / "mini-8-2.npz").read_bytes() == packed
    before = traces.load(file)
    for name in ("models", "settings"):
        shutil.rmtree(config.paths.data / "mini" / name)
    shutil.rmtree(config.paths.cache)
    small.run(config, "pretrain", "settings")
    assert not config.paths.cache.exists()
    assert traces.load(file).equals(before)
    small.run(config, "collect", name="demo")
    assert records.read(Path("results/demo/settings.json"), records.Setting) == rows
    capsys.readouterr()
    assert kept_again.run(config, 2, as_json=True)
    assert {row["result"] for row in json.loads(capsys.readouterr().out)} == {"the same bytes"}
    shutil.rmtree(config.paths.data / "mini" / "settings")  # as in a clone: it has the kept alone
    assert kept_again.run(config, 9, as_json=True, models=["mini-8-2"])
    again = json.loads(capsys.readouterr().out)
    assert {row["name"].partition(",")[0] for row in again} == {"mini-8-2"}
    assert {row["result"] for row in again} == {"the same bytes"}  # by the step of mini-8-1, too
    with pytest.raises(UserError, match=r"mini-9: git keeps no estimate .* mini-8-1, mini-8-2"):
        kept_again.run(config, 1, as_json=True, models=["mini-9"])
    longer = small.configured(**family(precision=0.8))
    assert kept.trace(longer, stage.units(longer, "mini-8-2")[0]) is not None
    alike = small.configured(**family(at=[POINT, POINT | {"nbeta": 100.00001}]))
    with pytest.raises(UserError, match=r"families.mini.settings.at: two settings of mini-8-1 are"):
        stage.units(alike, "mini-8-2")
    other = small.configured(**family(at=[POINT | {"nbeta": 101.0}]))
    assert kept.trace(other, stage.units(other, "mini-8-2")[0]) is None
    check_what_is_damaged(config, Path(text))


def check_what_is_damaged(config: Config, folder: Path) -> None:
    """Kept files that are damaged, missing, a pointer or another model's are told."""
    file, unit = folder / "mini-8-2.npz", stage.units(config, "mini-8-2")[0]
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    for content, says in (
        (file.read_bytes()[:-100], "cannot be read .*git checkout"),
        (b"", "it is no .npz file.*git checkout"),
        (folder.joinpath("mini-8-1.npz").read_bytes(), "it has traces of mini-8-1.*git checkout"),
        (pointer, "git lfs pull"),
    ):
        file.write_bytes(content)
        with pytest.raises(UserError, match=rf"mini-8-2.npz: .*{says}"):
            kept.trace(config, unit)
    model = config.families["mini"].models["mini-8-2"]
    assert isinstance(model, SingleEpochModel)
    trained = pretrain.training_unit(config, "mini-8-2", model)
    here = config.paths.models("mini") / "mini-8-2"
    before = {path: path.read_bytes() for path in sorted(here.iterdir()) if path.is_file()}
    assert kept.restore(config, "mini", trained)
    for spoil in (lambda path: path.write_bytes(b"0"), Path.unlink):
        spoil(folder / "mini-8-2" / "model.safetensors")
        with pytest.raises(UserError, match=r"model.safetensors is missing or damaged; .*checkout"):
            kept.restore(config, "mini", trained)
    assert {path: path.read_bytes() for path in before} == before


def test_what_quantised_weights_cannot_be_is_refused() -> None:
    for weights, at, says in (
        ("nf4", [POINT | {"rescaled": "gain"}], "rescaled: nf4 weights cannot be; leave it out"),
        ("dequantised", [POINT], "is not for dequantised weights; write null"),
    ):
        with pytest.raises(ValueError, match=says):
            small.configured(**family(at=at), families__mini__weights=weights)


def test_a_setting_of_another_familys_model_is_refused() -> None:
    for at, says in (
        ([POINT | {"models": ["mini-9"]}], "mini-9 is no model of this family"),
        ([POINT | {"rescaled": "gain", "checkpoints": True}], "give one of them"),
        ([POINT | {"rescaled": "gain", "minimised": 5}], "rescaled and minimised: give one"),
        ([{"nbeta": 30.0, "radius": "fixed"}], "radius: fixed multiplies localization"),
        ([], "at least 1 item"),
    ):
        with pytest.raises(ValueError, match=says):
            small.configured(**family(at=at))
