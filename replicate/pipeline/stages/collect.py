"""Stage `collect`: turns what a study's compute stages wrote into results/<study>/*.json.

Results contain only what was run. A trace that does not match the present params.yaml counts as
not run, and refused.json says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from replicate.data import json_io, tensors, traces
from replicate.data.tensors import file_hash
from replicate.errors import UserError
from replicate.estimation.regimes import Limits
from replicate.models.config import MANIFEST
from replicate.pipeline.config import Config
from replicate.pipeline.config.sources import (
    ControlModel,
    DiskCheckpoint,
    HubCheckpoint,
    SingleEpochModel,
)
from replicate.pipeline.stages import curve, neighbours, settings
from replicate.pipeline.work import plans, texts
from replicate.pipeline.work.units import ChainUnit
from replicate.study import collecting, protocol_2023, records
from replicate.study.plan import FamilyPlan
from replicate.study.records import Record, Refused
from replicate.study.settings import setting

Unit = ChainUnit | curve.CurveUnit | settings.SettingUnit
# a family's blocks that are hashed alone
PARTS = ("sampling", "search", "curve", "transfer", "original", "settings")


class Collection:
    """Collects the records of one study. `rows` has them by the name of their file."""

    def __init__(self, config: Config, study: str) -> None:
        self.config, self.study = config, study
        self.plan = config.plan(study)
        self.rows: dict[str, list[Record]] = {name: [] for name in records.COLLECTED}
        for family in self.plan.families:
            self.collect_family(family)
        self.collect_formats()

    def collect_family(self, family: FamilyPlan) -> None:
        """Fills in the records of one family."""
        config, paths, name, rows = self.config, self.config.paths, family.name, self.rows
        seeds = {
            model: texts.seed(config, model)
            for model in family.models
            if config.sampled(name) and (paths.baselines(name) / model / plans.WINDOWS).exists()
        }
        statistics = paths.windows(name) / "statistics.json"
        text = self.read("windows", statistics, family=name, sampled=seeds)
        search = {"family": name, "model": family.search_model}
        self.read("search", paths.search(name) / "trials.json", **search)
        self.read("importances", paths.search(name) / "importances.json", family=name)
        healthy = config.diagnostics.healthy
        regimes = config.diagnostics.regimes.model_dump()
        limits = Limits(**regimes, drift=healthy["drift"], local=healthy["local"])
        for model in family.models:
            mine = {"family": name, "model": model}
            self.read("training", paths.models(name) / model / "training.json", **mine)
            report = self.read("baselines", paths.baselines(name) / model / "baseline.json", **mine)
            trace = self.trace(paths.traces(name) / model, plans.estimate, config, model)
            where = paths.neighbours(name) / model
            neighbour = self.trace(where, neighbours.plan, config, model)
            if trace is not None:
                rows["estimates"] += collecting.estimates(
                    trace,
                    family.clip_quantile,
                    report[0] if report else None,
                    text[0]["vocabulary"] if text else None,
                    limits,
                    neighbour,
                )
                rows["provenance"].append(self.provenance(trace, model))
                if text:
                    vocabulary = text[0]["vocabulary"]
                    rows["traces"].append(collecting.thinned(trace, vocabulary, **healthy))
        for kind in family.curve:
            model, nbeta, gamma = kind
            path = paths.curve(name) / model / f"{nbeta:g}" / f"{gamma:g}"
            if (trace := self.trace(path, curve.at, config, *kind)) is not None:
                vocabulary = text[0]["vocabulary"] if text else None
                rows["curve"].append(collecting.curve_point(trace, vocabulary, limits))
        for model, factor in family.transfer:
            path = paths.transfer(name) / model / f"{factor:g}"
            trace = self.trace(path, plans.transfer, config, model, factor)
            if trace is not None:
                rows["transfer"].append(collecting.transferred(trace, factor))
        if paths.settings(name).is_dir():
            rows["settings"] += self.settings(family, limits)
        for model in family.original:
            trace = self.trace(paths.original(name) / model, plans.original, config, model)
            if trace is not None:
                rows["original"].append(protocol_2023.original(trace, family.clip_quantile))

    def settings(self, family: FamilyPlan, limits: Limits) -> Iterator[Record]:
        """Yields the records of λ̂ at the settings that a family lists."""
        for model in family.models:
            given = self.config.families[family.name].models[model]
            training, size, step = 1, model, None
            if isinstance(given, SingleEpochModel):
                training = given.seeds[0]
                size = model.removesuffix(f"-{training}")
            elif isinstance(given, HubCheckpoint | DiskCheckpoint):
                size, step = given.of, given.step
            for unit in settings.units(self.config, model):
                trace = self.trace(settings.folder(self.config, unit), lambda one: [one], unit)
                if trace is not None:
                    yield setting(trace, size, training, limits, step)

    def collect_formats(self) -> None:
        """Fills in the comparison of weight formats."""
        found: dict[tuple[str, str], list[Any]] = {}
        family = self.plan.quantised or self.plan.full
        for kind in self.plan.formats:
            model, moved, weights = kind
            rows = found.setdefault((model, moved), [])
            folder = self.config.paths.quantisation(family.name) / model / f"{moved}-{weights}"
            planned = plans.formats, self.config, self.study, kind, None
            trace = self.trace(folder / "trace", *planned)
            if trace is not None:
                losses_N = tensors.load(folder / "losses.safetensors")["losses"]
                rows.append((trace, losses_N, json_io.read_json(folder / "minimum.json")))
        for (_, moved), rows in found.items():
            self.rows["quantisation"] += collecting.quantised(moved, rows)

    def read(self, kind: str, path: Path, **known: Any) -> list[dict[str, Any]]:
        """Adds the records in a file that a stage wrote.

        Args:
            kind: the name of the records in `records.COLLECTED`.
            path: the file.
            known: the fields that the file leaves out, such as family and model.

        Returns:
            The rows of the file; none if the stage was not run.

        Raises:
            UserError: the file is damaged, or has a value that no stage writes.
        """
        if not path.exists():
            return []
        found = json_io.read_json(path)
        rows = found if isinstance(found, list) else [found]
        record = records.COLLECTED[kind]
        named = [
            known | {key: row[key] for key in row if key in record.model_fields}
            if isinstance(row, dict)
            else row
            for row in rows
        ]
        try:
            self.rows[kind] += records.checked(named, record)
        except ValueError as error:
            raise UserError(f"{path}: {records.explain(error)}; {json_io.AGAIN}") from None
        return rows

    def trace(
        self, path: Path, plan: Callable[..., Sequence[Unit]], *arguments: Any
    ) -> xr.Dataset | None:
        """Returns a trace if it was run and matches params.yaml; refuses one that does not match.

        Args:
            path: the trace.
            plan: a function that returns the trace's units.
            arguments: the arguments of that function.

        Raises:
            UserError: the trace is damaged.
        """
        if not path.exists():
            return None
        trace = traces.load(path)
        try:
            planned = with_defaults(plan(*arguments)[0].planned())
            reason = next(differences(with_defaults(trace.attrs), planned), None)
        except UserError as error:
            reason = str(error)
        if reason is None:
            return trace
        mine = {name: trace.attrs[name] for name in ("family", "model")}
        self.rows["refused"].append(Refused(**mine, path=path.as_posix(), reason=reason))
        print(f"not run: {path}: {reason}")
        return None

    def provenance(self, trace: xr.Dataset, model: str) -> records.Provenance:
        """Returns which parameters, weights, code and machine made a model's chains."""
        folder = self.config.paths.models(self.config.family_of(model)) / model
        manifest = json_io.read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
        noted = {name: file["sha256"] for name, file in manifest.get("files", {}).items()}
        files = {name: noted[name] for name in noted if name.endswith(".safetensors")}
        files |= {file.name: file_hash(file) for file in sorted(folder.glob("*.safetensors"))}
        return collecting.provenance(
            trace,
            parameters=parts(self.config, model),
            weights=files or None,
            repository=manifest.get("repository", manifest.get("path")),
            revision=manifest.get("revision"),
        )


def with_defaults(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Adds what attributes leave out: the loss of the last token, and a start at w*."""
    task = {"loss": "last"} | attributes["task"]
    return {**attributes, "task": task, "sampler": {"stationary": False} | attributes["sampler"]}


def differences(
    found: Mapping[str, Any], planned: Mapping[str, Any], at: str = ""
) -> Iterator[str]:
    """Yields a sentence on each attribute of a trace that is not what params.yaml asks for.

    Args:
        found: the attributes of the trace.
        planned: the attributes that a trace by params.yaml has.
        at: the key of the block that holds these attributes, such as `sampler.`.
    """
    for key, wanted in planned.items():
        there = found.get(key)
        if isinstance(wanted, dict) and isinstance(there, dict):
            yield from differences(there, wanted, f"{at}{key}.")
        elif there != (list(wanted) if isinstance(wanted, tuple) else wanted):
            short = (str(value)[:12] for value in (there, wanted))
            yield "{} is {} in the trace, and params.yaml asks for {}".format(at + key, *short)


def parts(config: Config, model: str) -> dict[str, str]:
    """Returns the hash of each part of params.yaml that a model's results depend on."""
    family = config.families[config.family_of(model)]
    given = family.models[model]
    blocks = {part: getattr(family, part) for part in PARTS} | {
        "model": given,
        "corpus": config.corpora[family.corpus],
        "tokenizer": config.tokenizers[family.tokenizer],
        "baseline": config.baseline,
    }
    if isinstance(given, ControlModel):
        blocks["training"] = config.training
    values = {part: block and block.model_dump(mode="json") for part, block in blocks.items()}
    values["family"] = family.model_dump(mode="json", exclude={*PARTS, "models"})
    return collecting.hashes(values)


def run(config: Config, study: str) -> None:
    """Writes the results of a study.

    Raises:
        UserError: nothing of the study was run here, and its results would be lost.
    """
    collection, out = Collection(config, study), config.paths.study(study)
    there = [out / f"{name}.json" for name in collection.rows]
    if not any(collection.rows.values()) and any(
        f.exists() and json_io.read_json(f) for f in there
    ):
        problem = "nothing of the study was run here, and these results would be lost"
        raise UserError(f"{out}: {problem}; run dvc repro {study}, or remove the folder")
    for name, rows in collection.rows.items():
        records.write(out / f"{name}.json", rows)
    estimates = [row for row in collection.rows["estimates"] if isinstance(row, records.Estimate)]
    json_io.write_json(out / "metrics.json", collecting.metrics(estimates))
    print(f"{study}: " + ", ".join(f"{len(rows)} {name}" for name, rows in collection.rows.items()))
