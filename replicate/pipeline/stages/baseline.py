"""The loss of every example at w*, once per model: shared by every chain, group and trial."""

from __future__ import annotations

from pathlib import Path

from replicate.data import tensors as arrays
from replicate.data.json_io import write_json
from replicate.models import baseline as minimum
from replicate.models import task as subjects
from replicate.pipeline.config import Params
from replicate.progress import progress


def run(params: Params, name: str, windows_in: Path, model_in: Path, out: Path) -> None:
    subject = subjects.load(params, name, windows_in, model_in)
    with progress(
        f"baseline {name}", minimum.work(len(subject.tokens_NxL), params.baseline)
    ) as advance:
        losses, report = minimum.examine(subject, params.baseline, advance)
    out.mkdir(parents=True)
    arrays.save(out / "losses.safetensors", {"losses": losses})
    write_json(out / "baseline.json", report)
    print(
        f"{name}: label loss {report['loss']:.4f} ± {report['standard_error']:.4f}, gradient norm {report['gradient_norm']:.4f}"
    )
