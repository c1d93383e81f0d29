"""What a model's results are from: hashes of its parameters, windows, weights and traces, and where
the traces were sampled.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from replicate.data import traces
from replicate.pipeline.config import Params, TrainedModel
from replicate.study.records import Provenance

PLANS = ("sampling", "search", "transfer", "original")  # of a family, hashed apart


def of_model(params: Params, name: str, folder: Path) -> Provenance:
    """`folder`: of the model's family. What has not been run is null."""
    manifest = folder / "models" / name / "manifest.json"
    known: dict[str, Any] = (
        json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
    )
    trace = traces.load(folder / "traces" / name) if (folder / "traces" / name).exists() else None
    sampled = {} if trace is None else trace.attrs.get("sampled_on", {})
    return Provenance(
        family=params.models[name].family,
        model=name,
        seed=params.seed,
        parameters=parameters(params, name),
        windows=of_file(folder / "windows" / "windows.safetensors"),
        repository=known.get("repository"),
        revision=known.get("revision"),
        weights=weights(folder / "models" / name, known.get("files")),
        traces=None
        if trace is None
        else digest(*(trace[key].values.astype("<f4").tobytes() for key in ("loss", "init_loss"))),
        device=sampled.get("device"),
        threads=sampled.get("threads"),
        versions=sampled.get("versions"),
        status="not run" if trace is None else "run",
    )


def parameters(params: Params, name: str) -> dict[str, str]:
    """The hash of each part of params.yaml that a model's results depend on, but the seed."""
    model = params.models[name]
    family = params.families[model.family]
    parts: dict[str, BaseModel] = {plan: getattr(family, plan) for plan in PLANS}
    parts |= {
        "model": model,
        "corpus": params.corpora[family.corpus],
        "tokenizer": params.tokenizers[family.tokenizer],
    }
    parts |= {"baseline": params.baseline} | (
        {"training": params.training} if isinstance(model, TrainedModel) else {}
    )
    values = {part: block.model_dump(mode="json") for part, block in parts.items()}
    values["family"] = family.model_dump(mode="json", exclude=set(PLANS))
    return {
        part: digest(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())
        for part, value in values.items()
    }


def weights(folder: Path, files: dict[str, Any] | None) -> dict[str, str | None] | None:
    """Of the files of a trained model; of a hub model what its manifest noted of them."""
    if files is not None:
        return {
            name: noted["sha256"] for name, noted in files.items() if name.endswith(".safetensors")
        }
    return {file.name: of_file(file) for file in sorted(folder.glob("*.safetensors"))} or None


def of_file(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(*pieces: bytes) -> str:
    return hashlib.sha256(b"".join(pieces)).hexdigest()
