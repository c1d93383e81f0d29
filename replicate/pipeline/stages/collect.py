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
from replicate.models.config import MANIFEST
from replicate.pipeline.config import Config, TrainedModel
from replicate.pipeline.work import plans
from replicate.pipeline.work.units import ChainUnit
from replicate.study import collecting, protocol_2023, records
from replicate.study.plan import FamilyPlan
from replicate.study.records import Record, Refused

PARTS = ("sampling", "search", "transfer", "original")  # of a family; each has its own hash


class Collection:
    """Collects the records of one study. `rows` has them by the name of their file."""

    def __init__(self, config: Config, study: str) -> None:
        self.config, self.study = config, study
        self.plan = config.plan(study)
        self.rows: dict[str, list[Record]] = {name: [] for name in records.COLLECTED}

    def collect(self) -> None:
        """Fills in the records of every family, and of the comparison of weight formats."""
        for family in self.plan.families:
            self.collect_family(family)
        self.collect_formats()

    def collect_family(self, family: FamilyPlan) -> None:
        """Fills in the records of one family."""
        paths, name, rows = self.config.paths, family.name, self.rows
        text = self.read("windows", paths.windows(name) / "statistics.json", family=name)
        search = {"family": name, "model": family.search_model}
        self.read("search", paths.search(name) / "trials.json", **search)
        self.read("importances", paths.search(name) / "importances.json", family=name)
        for model in family.models:
            mine = {"family": name, "model": model}
            self.read("training", paths.models(name) / model / "training.json", **mine)
            self.read("baselines", paths.baselines(name) / model / "baseline.json", **mine)
            path = paths.traces(name) / model
            planned = self.planned(plans.estimate, self.config, model)
            if (trace := self.trace(path, planned, mine)) is not None:
                rows["estimates"] += collecting.estimates(trace, family.clip_quantile)
                rows["provenance"].append(self.provenance(trace, model))
                if text:
                    limits = self.config.diagnostics.model_dump()
                    vocabulary = text[0]["vocabulary"]
                    rows["traces"].append(collecting.thinned(trace, vocabulary, **limits))
        for model, factor in family.transfer:
            path = paths.transfer(name) / model / f"{factor:g}"
            planned = self.planned(plans.transfer, self.config, model, factor)
            if (trace := self.trace(path, planned, {"family": name, "model": model})) is not None:
                rows["transfer"].append(collecting.transferred(trace, factor))
        for model in family.original:
            path = paths.original(name) / model
            planned = self.planned(plans.original, self.config, model)
            if (trace := self.trace(path, planned, {"family": name, "model": model})) is not None:
                rows["original"].append(protocol_2023.original(trace, family.clip_quantile))

    def collect_formats(self) -> None:
        """Fills in the comparison of weight formats."""
        kinds = dict.fromkeys((model, moved) for model, moved, _ in self.plan.formats)
        family = self.plan.quantised or self.plan.full
        for model, moved in kinds:
            found = []
            for each, way, weights in self.plan.formats:
                if (each, way) != (model, moved):
                    continue
                folder = self.config.paths.quantisation(family.name) / model
                folder /= f"{moved}-{weights}"
                planned = self.planned(self.format_units, model, moved, weights)
                mine = {"family": family.name, "model": model}
                if (trace := self.trace(folder / "trace", planned, mine)) is not None:
                    losses_N = tensors.load(folder / "losses.safetensors")["losses"]
                    report = json_io.read_json(folder / "minimum.json")
                    found.append((trace, losses_N, report))
            self.rows["quantisation"] += collecting.quantised(moved, found)

    def format_units(self, model: str, moved: str, weights: str) -> list[ChainUnit]:
        """Returns the chains of one model in one weight format."""
        task = plans.format_task(self.config, model, moved, weights)
        return plans.formats(self.config, self.study, task, described=True)

    def read(self, kind: str, path: Path, **known: str) -> list[dict[str, Any]]:
        """Adds the records in a file that a stage wrote.

        Args:
            kind: the name of the records in `records.COLLECTED`.
            path: the file.
            known: the fields that the file leaves out, such as family and model.

        Returns:
            The rows of the file; none if the stage was not run.
        """
        if not path.exists():
            return []
        found = json_io.read_json(path)
        rows = found if isinstance(found, list) else [found]
        record = records.COLLECTED[kind]
        fields = record.model_fields
        self.rows[kind] += [
            record.model_validate(known | {key: row[key] for key in row if key in fields})
            for row in rows
        ]
        return rows

    def planned(self, plan: Callable[..., Sequence[ChainUnit]], *arguments: Any) -> dict[str, Any]:
        """Returns the attributes of a trace that matches params.yaml, or why they are unknown.

        Args:
            plan: a function that returns the trace's units.
            arguments: the arguments of that function.

        Returns:
            The attributes, or a `reason` alone.
        """
        try:
            return plan(*arguments)[0].planned()
        except UserError as error:
            return {"reason": str(error)}

    def trace(
        self, path: Path, planned: Mapping[str, Any], mine: Mapping[str, str]
    ) -> xr.Dataset | None:
        """Returns a trace if it was run and matches params.yaml, otherwise None.

        Args:
            path: the trace.
            planned: the attributes that the trace must have.
            mine: the names of family and model, for the record of a refused trace.
        """
        if not path.exists():
            return None
        trace = traces.load(path)
        reason = next(differences(trace.attrs, planned), None)
        if reason is None:
            return trace
        self.rows["refused"].append(Refused(**mine, path=path.as_posix(), reason=reason))
        print(f"not run: {path}: {reason}")
        return None

    def provenance(self, trace: xr.Dataset, model: str) -> records.Provenance:
        """Returns which parameters, weights, code and machine made a model's chains."""
        folder = self.config.paths.models(self.config.family_of(model)) / model
        manifest = json_io.read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
        files = {
            name: noted["sha256"]
            for name, noted in manifest.get("files", {}).items()
            if name.endswith(".safetensors")
        }
        files |= {file.name: file_hash(file) for file in sorted(folder.glob("*.safetensors"))}
        return collecting.provenance(
            trace,
            parameters=parts(self.config, model),
            weights=files or None,
            repository=manifest.get("repository", manifest.get("path")),
            revision=manifest.get("revision"),
        )


def differences(
    found: Mapping[str, Any], planned: Mapping[str, Any], at: str = ""
) -> Iterator[str]:
    """Yields each difference between a trace's attributes and those that it must have.

    Args:
        found: the attributes of the trace.
        planned: the attributes that it must have; or a `reason` alone, which is then yielded.
        at: the keys above these attributes, such as `sampler.`.
    """
    if "reason" in planned:
        yield str(planned["reason"])
        return
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
    if isinstance(given, TrainedModel):
        blocks["training"] = config.training
    values = {part: block.model_dump(mode="json") for part, block in blocks.items()}
    values["family"] = family.model_dump(mode="json", exclude={*PARTS, "models"})
    return collecting.hashes(values)


def run(config: Config, study: str) -> None:
    """Writes the results of a study."""
    found, out = Collection(config, study), config.paths.study(study)
    found.collect()
    for name, rows in found.rows.items():
        records.write(out / f"{name}.json", rows)
    estimates = [row for row in found.rows["estimates"] if isinstance(row, records.Estimate)]
    json_io.write_json(out / "metrics.json", collecting.metrics(estimates))
    print(f"{study}: " + ", ".join(f"{len(rows)} {name}" for name, rows in found.rows.items()))
