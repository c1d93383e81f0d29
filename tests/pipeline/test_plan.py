"""A plan counts what a real model then has, from its configuration alone, and stops what cannot
fit.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
)

from replicate.errors import UserError
from replicate.models import last_token as label
from replicate.models import loading as models
from replicate.models import restrictions
from replicate.pipeline.config import load
from replicate.pipeline.planning import configurations, footprint
from replicate.pipeline.planning.footprint import Chain, Live
from replicate.pipeline.stages import workload
from replicate.pipeline.stages.fit import short
from replicate.pipeline.stages.plan import spell
from tests.conftest import ROOT, replicate

LENGTH, D, F, V = 33, 64, 128, 500
WHOLE = Chain("float32", "float32", ("all",), "sgld", LENGTH, 4, None, "kept")


def config(architecture: str, layers: int = 5) -> PretrainedConfig:
    if architecture == "gpt2":
        return GPT2Config(n_layer=layers, n_embd=D, n_head=2, vocab_size=V, n_positions=LENGTH)
    shape: dict[str, Any] = {
        "hidden_size": D,
        "intermediate_size": F,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "vocab_size": V,
    }
    return LlamaConfig(**shape) if architecture == "llama" else GPTNeoXConfig(**shape)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gpt_neox"])
def test_the_parameters_are_those_of_the_real_model(architecture: str) -> None:
    real = AutoModelForCausalLM.from_config(config(architecture))
    found = footprint.footprint(config(architecture), WHOLE)
    assert found.parameters == found.sampled == models.count(real)
    assert (
        found.anchor == 4 * found.parameters == pytest.approx(found.weights, rel=1e-3)
    )  # which have buffers too
    part = footprint.footprint(config(architecture), replace(WHOLE, restriction=("unquantised",)))
    masks = restrictions.restrict(real, ["unquantised"])
    assert part.sampled == sum(real.get_parameter(name).numel() for name in masks) < found.sampled


@pytest.mark.parametrize("weights", ["nf4", "int8"])
def test_the_bytes_of_a_quantised_model_are_bitsandbytes(tmp_path: Path, weights: str) -> None:
    AutoModelForCausalLM.from_config(config("llama")).save_pretrained(tmp_path)
    real = models.load(tmp_path, weights, torch.device("cpu"))
    states = [
        state for p in real.parameters() if (state := getattr(p, "quant_state", None)) is not None
    ]
    size = sum(p.nbytes for p in real.parameters()) + sum(state.absmax.nbytes for state in states)
    size += sum(
        scale.nbytes for p in real.parameters() if (scale := getattr(p, "SCB", None)) is not None
    )
    found = footprint.footprint(config("llama"), replace(WHOLE, weights=weights))
    assert found.weights == pytest.approx(size, rel=0.02)
    assert found.sampled == sum(p.numel() for p in models.sampled(real).values())


def test_a_weight_around_its_4_bits_takes_little_more_than_two_and_a_half_bytes() -> None:
    """bfloat16, 4 bits, and a float32 scale for 64: 2.5625; embeddings, head and norms, not
    quantised, 4.
    """
    found = footprint.footprint(config("llama"), replace(WHOLE, weights="dequantised"))
    unquantised = footprint.footprint(
        config("llama"), replace(WHOLE, restriction=("unquantised",))
    ).sampled
    quantised = found.parameters - unquantised
    assert found.weights + found.anchor == pytest.approx(
        2.5625 * quantised + 4 * unquantised, rel=1e-3
    )


def test_operations_are_those_of_the_formula() -> None:
    """A multiplication and an addition for each weight and token, twice T²·d for the scores and
    twice for the values in a block; in the last one, only queries, keys and values at every
    position. Backward takes twice as much, once where a matrix has no gradient.
    """
    T, layers = LENGTH - 1, 5
    block = 2 * T * (4 * D * D + 3 * D * F) + 4 * T * T * D
    last = 2 * T * 3 * D * D + 4 * T * D + 2 * (D * D + 3 * D * F) + 2 * D * V
    found = footprint.footprint(config("llama"), WHOLE)
    assert found.example == pytest.approx((layers - 1) * block + last, rel=0.01)
    assert found.step / (WHOLE.batch_size * found.example) == pytest.approx(3, rel=0.05)
    quantised = footprint.footprint(config("llama"), replace(WHOLE, weights="nf4"))
    assert quantised.step / (WHOLE.batch_size * quantised.example) == pytest.approx(2, rel=0.1)
    again = footprint.footprint(config("llama"), replace(WHOLE, activations="recomputed"))
    assert again.step / (WHOLE.batch_size * found.example) == pytest.approx(4, rel=0.05)


OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("gpt2", {}),
    ("gpt2", {"activations": "recomputed"}),
    ("gpt2", {"sampler": "rmsprop"}),
    ("gpt_neox", {"batch_size": 1}),
    ("llama", {"weights": "nf4", "batch_size": 16, "microbatch": 4}),
    ("llama", {"weights": "dequantised", "activations": "recomputed"}),
    ("llama", {"weights": "bfloat16", "restriction": ("l1",)}),
]


@pytest.mark.parametrize(("architecture", "other"), OTHERS, ids=str)
def test_a_deep_model_is_what_counting_it_whole_would_find(
    architecture: str, other: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = replace(WHOLE, **other)
    found = footprint.footprint(config(architecture, 9), chain)
    monkeypatch.setattr(footprint, "DEPTHS", (2, 100))
    whole = footprint.footprint(config(architecture, 9), chain)
    assert vars(found) == pytest.approx(vars(whole), rel=0.002)


@pytest.mark.parametrize("activations", ["kept", "recomputed"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gpt_neox"])
def test_the_bytes_of_a_step_are_those_of_real_tensors(architecture: str, activations: str) -> None:
    """The same count on real tensors, with the sampler's way of consuming gradients."""
    model = models.settle(AutoModelForCausalLM.from_config(config(architecture)))
    label.focus(model)
    if activations == "recomputed":
        models.recompute(model)
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(
            lambda parameter: setattr(parameter, "grad", None)
        )
    tokens, live = torch.zeros(4, LENGTH, dtype=torch.long), Live()
    label.losses(model, tokens).mean().backward()
    with live:
        for parameter in model.parameters():
            parameter.view(-1)  # seen, so that it is not counted as new
        start = live.peak = live.now
        label.losses(model, tokens).mean().backward()
    found = footprint.footprint(config(architecture), replace(WHOLE, activations=activations))
    assert found.working == pytest.approx(live.peak - start, rel=0.03)


def test_the_noted_configurations_are_the_models_that_are_published() -> None:
    """Parameters as the publications have them."""
    norms = replace(WHOLE, restriction=("norms",))
    sizes = {
        "openai-community/gpt2": 124.4e6,
        "openai-community/gpt2-xl": 1557.6e6,
        "EleutherAI/pythia-1.4b": 1414.6e6,
    }
    sizes |= {
        "meta-llama/Llama-2-7b-hf": 6738.4e6,
        "meta-llama/Llama-2-13b-hf": 13015.9e6,
        "meta-llama/Llama-2-70b-hf": 68976.6e6,
    }
    for repository, size in sizes.items():
        known = configurations.of_hub(repository, "f" * 40)
        assert known is not None
        assert footprint.footprint(known, norms).parameters == pytest.approx(size, rel=1e-3)


def test_70b_in_4_bits_fits_one_card_and_7b_with_all_its_weights_moving_too() -> None:
    params = load(ROOT / "params.yaml")
    family = params.families["llama2"]
    seventy, seven = (
        workload.configuration(params, name) for name in ("llama-2-70b", "llama-2-7b")
    )
    assert seventy is not None
    assert seven is not None
    restricted = footprint.footprint(seventy, workload.chain(family))
    assert 37e9 < restricted.weights < restricted.memory(cuda=True) < 75e9
    full = footprint.footprint(
        seven,
        workload.chain(
            family, weights="dequantised", restriction=("all",), batch_size=8, microbatch=None
        ),
    )
    assert full.memory(cuda=True) < 20e9


def test_the_work_of_a_stage_is_the_product_of_its_numbers() -> None:
    """gpt2's search: 4·3·3·3 settings of SGLD, 4·3·1·3 of SGNHT, 24 of TPE for each of three
    samplers, 7 chains of 220 steps.
    """
    params = load(ROOT / "params.yaml")
    found = {task.stage: task for task in workload.tasks(params)}
    assert found["search@gpt2"].steps == (108 + 36 + 72) * 7 * 220
    assert found["estimate@gpt2"].steps == 4 * 4 * 400
    stretched = math.fsum((1 / 0.333, 1, 1)) * 4 * 200
    assert found["transfer@gpt2"].steps == pytest.approx(stretched, abs=1)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, ""),
        (12, "12 "),
        (999, "999 "),
        (1234, "1.23 k"),
        (6.7e9, "6.7 G"),
        (3e19, "30 E"),
        (4.6e21, "4.6e+03 E"),
    ],
)
def test_numbers_are_said_in_three_digits(value: float, said: str) -> None:
    assert short(value) == said


def test_seconds_are_said_as_people_do() -> None:
    assert [spell(seconds) for seconds in (3.2, 89, 120, 5399, 7200)] == [
        "3 s",
        "89 s",
        "2 min",
        "90 min",
        "2.0 h",
    ]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    for name in ("dvc.yaml", "params.yaml", ".dvc/config", "data/published.yaml"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "replicate").symlink_to(ROOT / "replicate")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def test_a_plan_downloads_nothing_and_says_what_cannot_run_here(
    project: Path, tmp_path: Path
) -> None:
    before = sorted(project.rglob("*"))
    offline = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = replicate(
        "plan", "estimate@llama-2-70b", "--no-measure", "--json", cwd=project, **offline
    )
    assert done.returncode == 0, done.stderr
    lines = {(line["stage"], line["model"]): line for line in json.loads(done.stdout)["lines"]}
    seventy = lines["estimate@llama-2-70b", "llama-2-70b"]
    assert seventy["fit"] == ("needs a GPU" if not torch.cuda.is_available() else seventy["fit"])
    assert seventy["parameters"] == pytest.approx(68.98e9, rel=1e-3)
    assert lines["pretrain@llama-2-70b", "llama-2-70b"]["download"] == pytest.approx(
        138e9, rel=0.01
    )
    assert set(lines) >= {("extract@llama2", None), ("search@llama2", "llama-2-13b")}
    assert [
        path
        for path in sorted(project.rglob("*"))
        if path not in before and ".dvc" not in path.parts
    ] == []
    assert not any(tmp_path.iterdir())


def test_a_plan_for_a_named_device_has_times(project: Path) -> None:
    done = replicate("plan", "estimate@gpt2", "--device", "h100", "--json", cwd=project)
    assert done.returncode == 0, done.stderr
    lines = {line["stage"]: line for line in json.loads(done.stdout)["lines"]}
    assert lines["estimate@gpt2"]["seconds"] > 10
    assert lines["estimate@gpt2"]["fit"] == "fits"
    printed = replicate("plan", "estimate@gpt2", "--device", "h100", cwd=project).stdout
    assert "by its maker's figures" in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("plan", "--device", "abacus", "estimate@gpt2"),
            "error: plan: 'abacus' is no known device; write one of h200, h100",
        ),
        (("plan", "estimate@nobody"), "`dvc stage list` lists the targets"),
    ],
)
def test_a_mistake_is_one_line(project: Path, arguments: tuple[str, ...], says: str) -> None:
    done = replicate(*arguments, cwd=project)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stage_that_cannot_fit_stops_before_anything_is_loaded(tmp_path: Path) -> None:
    """A control model of 10¹³ weights, whose folders are empty: the plan's line, and neither
    weights nor windows are missed.
    """
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(
        text.replace("layers: 2, width: 24", "layers: 200, width: 65536")
    )
    for name in ("windows", "weights", "baseline", "search"):
        (tmp_path / name).mkdir()
    done = replicate(
        "estimate",
        "mini-34k",
        "windows",
        "weights",
        "baseline",
        "search",
        "out",
        "log",
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: estimate@mini-34k: mini-34k in float32 needs" in done.stderr
    assert "activations: recomputed" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_word_of_a_restriction_is_told_by_the_plan() -> None:
    with pytest.raises(UserError, match="restriction 'nothing'"):
        footprint.footprint(config("llama"), replace(WHOLE, restriction=("nothing",)))
