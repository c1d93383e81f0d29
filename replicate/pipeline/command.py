"""What is done around every stage: its paths are looked at, its output is there as a whole or not
at all, its run is logged.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from replicate.errors import UserError
from replicate.pipeline import parallel as processes
from replicate.pipeline import runs
from replicate.pipeline.config import load

PARAMS = Path("params.yaml")
LOGS = Path("logs")  # where dvc.yaml has the stages' logs
INPUTS = (
    "windows",
    "weights",
    "baseline",
    "search",
    "results",
    "published",
    "benchmarks",
    "figures",
)  # paths that must be there
FILES = {"published": "data/published.yaml", "page": "report.html"}  # paths that are no folders


def run(
    stage: str, argument: tuple[str, str] | None, paths: Mapping[str, Path], parallel: bool
) -> None:
    """Calls `replicate.stages.<stage>.run(params, [argument], *paths)`, if `parallel` on several
    processes; a stage that takes `weights` only where they fit. `argument`: its kind, family, model
    or study, and its name.

    Raises:
        UserError: the argument or a path is wrong, the stage says so, or the machine cannot.
    """
    params = load(PARAMS)
    if argument is not None:
        section = {"family": params.families, "model": params.models, "study": params.studies}[
            argument[0]
        ]
        if argument[1] not in section:
            raise UserError(
                f"{argument[0]} {argument[1]!r}: params.yaml has none of that name; give one of {', '.join(section)}"
            )
    new = "out" in paths and (
        stage == "quantisation" or (argument is not None and argument[0] != "study")
    )
    check(paths, new)
    first = os.environ.get("RANK", "0") == "0"
    name = argument and argument[1]
    with runs.logged(LOGS / "runs.jsonl", PARAMS, stage, name):
        if parallel and argument is not None:
            family = params.family_of(*argument)
            processes.start(
                processes.count(params.machine.processes, params.families[family].cards)
            )
        if first:
            sweep(paths.get("log"))
        if first and "weights" in paths:
            import_module("replicate.pipeline.stages.fit").refuse(params, stage, name)
        given = dict(paths)
        if new:
            given["out"] = paths["out"].with_name(f"{paths['out'].name}.partial")
            if first:
                shutil.rmtree(given["out"], ignore_errors=True)  # what an interrupted run left
        try:
            import_module(f"replicate.pipeline.stages.{stage}").run(
                params, *([name] if name else []), *given.values()
            )
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            StopIteration,
            TypeError,
            ValueError,
        ) as error:
            read = paths.get("results", paths.get("data"))
            if read is None:
                raise
            # each file can be read, and yet they are of no one run of the stages
            cause = f"{type(error).__name__}: {error}"
            raise UserError(
                f"{read}: its files do not fit one another ({cause}); run `dvc repro` again"
            ) from error
        if new and first:
            given["out"].rename(paths["out"])


def check(paths: Mapping[str, Path], new: bool) -> None:
    """Whether a command's inputs are of the right kind and its outputs can be written, before
    anything is; `new`: `out` is not there yet.

    Raises:
        UserError: with the path.
    """
    inputs = [path.resolve() for key, path in paths.items() if key in INPUTS]
    for key, path in paths.items():
        try:
            path.lstat()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise UserError(f"{path}: {error.strerror}; give another path") from None
        there = next(each for each in (path, *path.parents) if os.path.lexists(each))
        if key == "out" and new and path.exists():
            raise UserError(
                f"{path}: is there already; remove it first, or leave that to `dvc repro`"
            )
        if key in FILES and path.is_dir():
            raise UserError(f"{path}: a folder; give a file as {FILES[key]}")
        if key in FILES and there == path:
            there = path.parent
        if key != "published" and not there.is_dir():
            raise UserError(f"{path}: {there} is a file; give a folder")
        if key in INPUTS:
            if not path.exists():
                raise UserError(
                    f"{path}: missing; run the stage that makes it, or leave the order to `dvc repro`"
                )
        elif key != "data":
            if new and any(path.resolve().is_relative_to(each) for each in inputs):
                raise UserError(
                    f"{path}: lies in an input, which it would change; give a folder outside of it"
                )
            if not os.access(there, os.W_OK | os.X_OK):
                raise UserError(
                    f"{path}: {there} cannot be written to; change its permissions, or give another folder"
                )


def sweep(log: Path | None) -> None:
    """Removes the finished chains of stages that log elsewhere: now that another one starts, DVC
    has taken their outputs.
    """
    for mark in list(LOGS.rglob("finished")):
        if log is None or log not in mark.parents:
            shutil.rmtree(mark.parent, ignore_errors=True)
