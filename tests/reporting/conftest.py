"""A project in which the control study has run and no other, read to its end."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from replicate.pipeline.config import Config, load
from replicate.pipeline.stages import published, read, reference, report
from tests.conftest import ROOT
from tests.reporting.records import of_study, put, put_calibration


@pytest.fixture(scope="session")
def config() -> Config:
    return load(ROOT / "params.yaml")


@pytest.fixture(scope="session")
def project(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    for file in ("data/published.yaml", "benchmarks/results.json", "params.yaml"):
        (root / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, root / file)
    put(root / "results" / "control", of_study(config.plan("control")))
    for name in config.studies:
        if name != "control":
            put(root / "results" / name, {})
    put_calibration(root / "results" / "control")
    with contextlib.chdir(root):
        published.run(config)
        for study in config.studies:
            read.run(config, study)
        reference.run(config)
        report.run(config)
    return root
