"""The precision of the products is not seen in λ̂."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from replicate.estimation import estimators
from replicate.models import (
    cpu_kernels as cpu,
)
from replicate.models import (
    last_token as label,
)
from replicate.models import (
    loading as models,
)
from replicate.models import (
    training as pretrain,
)
from replicate.models.task import Subject
from replicate.pipeline.config import load
from replicate.progress import Advance
from replicate.sampling import Plan, Setting, Space, sample
from tests.conftest import ROOT

SILENT: Advance = lambda steps=1, note="": None  # noqa: E731


@pytest.fixture(scope="module")
def subjects() -> dict[str, Subject]:
    """One small trained model in both precisions."""
    cpu.prepare()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 12, (4000, 9), generator=generator)
    for i in range(2, 9):  # most tokens are one more than the one before the last
        tokens[:, i] = torch.where(
            torch.rand(4000, generator=generator) < 0.8, (tokens[:, i - 2] + 1) % 12, tokens[:, i]
        )
    torch.manual_seed(0)
    model = models.build("gpt2", layers=2, width=32, heads=2, vocabulary=12, length=9)
    schedule = pretrain.Schedule(
        lr=5e-3, batch_size=64, warmup=20, check=50, tolerance=0.0, descent=0.5, steps=600
    )
    pretrain.train(model, tokens, schedule, generator, SILENT)
    label.focus(model.eval())
    family = load(ROOT / "params.yaml").families["mini"]
    names, space = tuple(dict(model.named_parameters())), Space(list(model.parameters()))
    return {
        precision: Subject(
            "small",
            "mini",
            family.model_copy(update={"products": precision}),
            model,
            tokens,
            1,
            names,
            space,
        )
        for precision in ("float32", "bfloat16")
    }


def test_lambda_does_not_move_beyond_its_error_in_bfloat16(subjects: dict[str, Subject]) -> None:
    """Same batches, same noise, each precision with a baseline of its own."""
    found, losses = {}, {}
    for precision, subject in subjects.items():
        with torch.no_grad():
            losses[precision] = subject(torch.arange(4000)).numpy()
        trace = sample(
            subject.space,
            subject,
            losses[precision],
            Setting("sgld", 1e-3, localization=30.0),
            Plan(30.0, batch_size=64, groups=4, chains=1, burn_in=60, draws=80),
            order=subject.order,
            noise=lambda group, chain: group,
            advance=SILENT,
        )
        found[precision] = estimators.summarise(
            estimators.controlled(trace, 30.0, float(losses[precision].mean(dtype=np.float64)))
        )
    assert not np.array_equal(losses["float32"], losses["bfloat16"])
    a, b = found["float32"], found["bfloat16"]
    assert a.llc > 10 * a.standard_error
    assert abs(a.llc - b.llc) < max(a.standard_error, b.standard_error)


def test_losses_in_bfloat16_are_summed_in_float32(subjects: dict[str, Subject]) -> None:
    losses = subjects["bfloat16"](torch.arange(50))
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, subjects["float32"](torch.arange(50)), rtol=0.05, atol=0.05)
