"""w* of one model: a control model is trained on its family's windows, a hub model is fetched at
its pinned revision.
"""

from __future__ import annotations

from pathlib import Path

import torch

from replicate.data import windows
from replicate.data.json_io import write_json
from replicate.models import loading as models
from replicate.models import training as pretrain
from replicate.pipeline import cache as kept
from replicate.pipeline.config import HubModel, Params
from replicate.progress import progress
from replicate.seeds import derive


def run(params: Params, name: str, windows_in: Path, out: Path, log: Path) -> None:
    model_params = params.models[name]
    family = params.families[model_params.family]
    device = models.device(family.device, name)
    if isinstance(model_params, HubModel):
        models.save_manifest(out, model_params.repository, model_params.revision)
        return

    text = windows.load(windows_in / "windows.safetensors")
    vocabulary = windows.read_tokenizer(windows_in).get_vocab_size()
    torch.manual_seed(derive(params.seed, "initialise", name))
    model = models.build(
        model_params.architecture,
        layers=model_params.layers,
        width=model_params.width,
        heads=model_params.heads,
        vocabulary=vocabulary,
        length=text.tokens_NxL.shape[1],
    )
    model.to(device)  # pyright: ignore[reportArgumentType]
    tokens_NxL = torch.from_numpy(text.tokens_NxL).long().to(device)
    schedule = pretrain.Schedule(lr=model_params.lr, **params.training.model_dump())
    generator = torch.Generator().manual_seed(derive(params.seed, "train", name))
    settings = [params.seed, name, model_params.model_dump(), params.training.model_dump()]
    place = kept.folder(
        log, ["models", "seeds.py"], [windows_in], settings
    )
    rest = kept.Rest(place / "rest", params.machine.checkpoint_seconds)
    with progress(
        f"pretrain {name} ({models.count(model):,} parameters)", schedule.steps
    ) as advance:
        outcome = pretrain.train(model, tokens_NxL, schedule, generator, advance, rest)

    floor = (
        None if text.floor_NxL is None else text.floor_NxL[: pretrain.EVALUATED, 1:].astype(float)
    )
    report = {
        "steps": outcome.steps,
        "epochs": outcome.steps * schedule.batch_size / len(tokens_NxL),
        "loss": outcome.loss,
        "label_loss": outcome.label_loss,
        "floor": None if floor is None else floor.mean(),
        "label_floor": None if floor is None else floor[:, -1].mean(),
        "flat": outcome.flat,
    }
    model.save_pretrained(out, safe_serialization=True)
    write_json(out / "training.json", report)
    kept.finish(place)
    known = (
        "unknown" if floor is None else f"{report['floor']:.4f} (label {report['label_floor']:.4f})"
    )
    flat = "flat" if outcome.flat else "not flat"
    print(
        f"{name}: loss {outcome.loss:.4f} (label {outcome.label_loss:.4f}), {flat} after {outcome.steps} steps; floor {known}"
    )
