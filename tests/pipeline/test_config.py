"""params.yaml is read strictly: a mistake is one line that names the key and the remedy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides
from pydantic import ValidationError

from replicate.pipeline import config
from replicate.pipeline.config import reading, sources
from tests.conftest import ROOT
from tests.pipeline.small import DATA, MISSING, TEXT, changed, configured, told, write

DEMO = "families.demo"
GPT2 = DATA["families"]["gpt2"]["models"]["gpt2"]
STEPS = {"source": "checkpoints", "at": {10: "step-10"}}
SETTINGS: list[tuple[Mapping[str, Any], str]] = [  # of a key, and words of the line
    ({"seeed": 2023}, "seeed: unknown key; remove it or write seed"),
    ({f"{DEMO}.sampling.groups": 4}, f"{DEMO}.sampling.groups: unknown key"),
    ({"seed": MISSING}, "seed: missing; add it"),
    ({f"{DEMO}.search.sgld.lr": MISSING}, f"{DEMO}.search.sgld.lr: missing"),
    ({"seed": "1"}, "seed: '1' is text where a number belongs; write it without quotes"),
    ({"seed": -1}, "seed: must be at least 0 (-1 given)"),
    ({"seed": 1.5}, "seed: "),
    ({"seed": 10**400}, "seed: "),
    ({f"{DEMO}.sampling.nbeta": float("inf")}, f"{DEMO}.sampling.nbeta: "),
    ({f"{DEMO}.sampling.shuffles": 0}, f"{DEMO}.sampling.shuffles: "),
    ({f"{DEMO}.loss": "all"}, f"{DEMO}.loss: must be 'last' or 'tokens' ('all' given)"),
    ({f"{DEMO}.sampling.sampler": "adam"}, f"{DEMO}.sampling.sampler: must be 'sgld', "),
    ({f"{DEMO}.search.tpe.sgld.lr": [0.1, 0.01]}, "tpe.sgld.lr: write the smaller end first"),
    ({f"{DEMO}.transfer.factors": [1.0, 1.0, 3.0]}, "factors: each value may be listed only once"),
    ({f"{DEMO}.transfer.factors": [0.3, 3.0]}, "factors: 1.0, which the others are compared with"),
    ({"corpora.films.source": "invented"}, "corpora.films.source: write one of"),
    ({"corpora": {"../films": DATA["corpora"]["films"]}}, "corpora.../films"),
    ({"tokenizers.gpt2.revision": "main"}, "tokenizers.gpt2.revision: "),
    ({"corpora.imdb.file": "../../train"}, "corpora.imdb.file: "),
    ({"corpora.imdb.repository": "../.."}, "corpora.imdb.repository: "),
    ({"corpora.own.path": "data\0own"}, "corpora.own.path: "),
    ({f"{DEMO}.models.gpt2": GPT2}, "demo has a model of that name"),
    ({f"{DEMO}.models": {"pythia-1.4b": GPT2}}, f"{DEMO}.models.pythia-1.4b"),
    ({f"{DEMO}.corpus": "flims"}, f"{DEMO}.corpus: 'flims' is not one of corpora; write one of fi"),
    ({f"{DEMO}.models.demo-15k": GPT2 | {"revision": "main"}}, f"{DEMO}.models.demo-15k.revision"),
    ({f"{DEMO}.models.demo-15k": GPT2 | {"source": "git"}}, f"{DEMO}.models.demo-15k.source: "),
    ({f"{DEMO}.models": {"a": STEPS | {"at": {"ten": "b"}}}}, f"{DEMO}.models.a.at: ten: write a"),
    ({f"{DEMO}.models": {"a": STEPS | {"at": {"03": "b"}}}}, f"{DEMO}.models.a.at: 03: write a"),
    ({f"{DEMO}.models": {"a": STEPS | {"at": {3e3: "b"}}}}, "3000.0 is neither text nor a whole"),
    ({f"{DEMO}.models": {"a": STEPS | {"at": {}}}}, "models.a.at: needs at least 1"),
    ({f"{DEMO}.models": {"a": STEPS | {"repository": "a/b"}}}, "a.at.10: 'step-10' is not the 40"),
    ({"studies.demo.full": "maxi"}, "studies.demo.full: 'maxi' is not one of families"),
    ({"studies.demo.quantised": None}, "studies.demo.quantised: "),
    ({f"{DEMO}.search.model": "gpt2"}, f"{DEMO}.search.model: 'gpt2' is not of family demo; write"),
    ({f"{DEMO}.transfer.models": ["gpt2"]}, f"{DEMO}.transfer.models: 'gpt2' is not of family"),
    ({f"{DEMO}.original.models": []}, f"{DEMO}.original.models: "),
    ({f"{DEMO}.original.models": "al"}, f"{DEMO}.original.models: "),
    ({"studies.control.quantisation.models": ["gpt2"]}, "'gpt2' is not of family sizes-llama"),
    ({f"{DEMO}.sampling.sampler": "sgnht"}, f"{DEMO}.sampling.localization: SGNHT has no local"),
    ({f"{DEMO}.models.demo-15k.width": 26}, ".width: 26 is not a multiple of 2 × heads (4)"),
    (
        {f"{DEMO}.sampling.implementation": "devinterp", f"{DEMO}.weights": "bfloat16"},
        f"{DEMO}.sampling.implementation: devinterp rounds bfloat16 to nearest; write replicate",
    ),
    ({"studies.published": DATA["studies"]["demo"]}, "studies.published: the name is taken"),
    ({"studies": {}}, "studies: needs at least 1, and has 0; correct it"),
    ({f"{DEMO}.search.sgld.lr": [1e-4, 1.0e-4]}, "sgld.lr: each value may be listed only once"),
    ({f"{DEMO}.search.sgld.bounding_box": [None] * 2}, "bounding_box: each value may be listed"),
    ({f"{DEMO}.search.sgnht.diffusion": [0.1] * 2}, "diffusion: each value may be listed only"),
    ({"calibration.demo.targets": ["a", "a"]}, "targets: each value may be listed only once"),
    ({"seed": None}, "seed: is null where a whole number belongs; correct it"),
    ({"seed": "one"}, "seed: 'one' is text where a number belongs; write a number"),
    ({"machine": [1]}, "machine: is a list where a block of keys belongs; correct it"),
    ({"machine.workers": True}, "machine.workers: is true where a whole number belongs; correct"),
    ({f"{DEMO}.weights": 4}, f"{DEMO}.weights: must be 'float32', "),
    ({f"{DEMO}.transfer.factors": 1.0}, "factors: is 1.0 where a list belongs; correct it"),
    ({f"{DEMO}.models.MINI": GPT2}, f"{DEMO}.models.MINI: must be lower-case letters, digits and"),
    ({"tokenizers.gpt2.repository": "gpt2"}, "repository: must be owner/name ('gpt2' given)"),
]
LEAKS = ("input should", "string should", "tuple should", "dictionary", "array", "[key]", "literal")


@pytest.mark.parametrize(("changes", "says"), SETTINGS, ids=[says[:40] for _, says in SETTINGS])
def test_a_setting_that_cannot_be_is_told(
    tmp_path: Path, changes: Mapping[str, Any], says: str
) -> None:
    write(tmp_path, changed(DATA, changes))
    line = told(lambda: config.load(tmp_path / "params.yaml"), "params.yaml: ", says)
    assert not [words for words in LEAKS if words in line]  # they are pydantic's


FILES: dict[str, tuple[str | bytes, str]] = {
    "key twice": (TEXT.replace("seed: 2023", "seed: 1\nseed: 2"), "the key 'seed' stands twice"),
    "merge twice": (
        TEXT.replace("    <<: *language-models\n", "    <<: *language-models\n" * 2),
        "the key '<<' stands twice",
    ),
    "key a number": (TEXT.replace("seed: 2023", "2023: 1"), "2023: unknown key; remove it"),
    "a number twice": (f"{TEXT}\n16: 1\n0x10: 1\n", "the key '0x10' stands twice"),
    "key a date": (TEXT.replace("seed: 2023", "2023-11-01: 1"), "2023-11-01 is neither text nor"),
    "not YAML": ("seed: [", "not YAML"),
    "alias of nothing": (TEXT.replace("seed: 2023", "seed: *x"), "undefined alias 'x'"),
    "an object of Python": ("seed: !!python/object/apply:os.system [x]", "not YAML"),
    "a list": ("[]", "the file: "),
    "empty": ("", "the file: "),
    "bytes": (b"\xff\xfe\xfa", "not UTF-8"),
    "control character": ("seed: \x1b[31m", "not YAML"),
    "escaped control character": (TEXT.replace("2023", '"\\x1b[31m"'), "seed: '\\x1b[31m' is text"),
    "number in quotes": (TEXT.replace("lr: [1.0e-7,", "lr: ['1e-7',"), "'1e-7' is text where"),
    "date": (TEXT.replace("seed: 2023", "seed: 2023-11-01"), "seed: "),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_not_parameters_is_told(tmp_path: Path, kind: str) -> None:
    content, says = FILES[kind]
    path = tmp_path / "params.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    told(lambda: config.load(path), f"{path}: ", says)


@pytest.mark.fault("C10")
@pytest.mark.parametrize("plain", "1:30 010 -017 0b11 0o17 1_000 no Yes ON".split())
def test_what_two_versions_of_yaml_read_differently_is_told(tmp_path: Path, plain: str) -> None:
    """PyYAML reads 1:30 as 90 and 010 as 8; DVC reads them as text and as 10."""
    path = tmp_path / "params.yaml"
    path.write_text(TEXT.replace("seed: 2023", f"seed: {plain}"))
    told(lambda: config.load(path), f"{plain} is one value to YAML 1.1 and another to YAML 1.2")
    head, tail = TEXT.split("    note: ", 1)
    path.write_text(f"{head}    note: '{plain}'\n{tail.partition(chr(10))[2]}")
    assert config.load(path).studies["control"].note == plain


@pytest.mark.fault("C10")
@pytest.mark.parametrize("block", ["x: &x [*x]", "x: &x {a: *x}", "x: &x {a: [{b: *x}]}"])
def test_a_block_that_holds_itself_is_told(tmp_path: Path, block: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"{TEXT}\n{block}\n")
    told(lambda: config.load(path), "a block holds itself; take the file from git again")


def test_a_file_that_is_not_there_or_a_folder_is_told(tmp_path: Path) -> None:
    told(lambda: config.load(tmp_path / "none.yaml"), "run this from the project's root")
    told(lambda: config.load(tmp_path), "make it a file that can be read")


@pytest.mark.parametrize("number", ["1e-07", "1.e-7", "1E-7", "+1.0e-7", ".1e-6"])
def test_a_number_is_read_however_dvc_writes_it(number: str) -> None:
    assert config.parse(TEXT.replace("1.0e-7", number)) == config.parse(TEXT)


def test_parameters_are_frozen_and_the_rest_has_defaults() -> None:
    found = configured(machine=MISSING, families__mini__compute_dtype=MISSING)
    assert found.machine.workers == "auto"
    assert found.families["mini"].compute_dtype == "float32"
    with pytest.raises(ValidationError, match="frozen"):
        found.seed = 1  # pyright: ignore[reportAttributeAccessIssue]


def test_all_models_are_those_of_the_family_in_their_order() -> None:
    plan = config.load(ROOT / "params.yaml").plan("paper")
    gpt2 = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
    assert plan.full.models == plan.full.original == gpt2
    assert plan.full.transfer == tuple((name, x) for name in gpt2 for x in (0.333, 1.0, 3.0))
    assert plan.quantised is not None
    assert plan.quantised.models[2:] == ("llama-2-70b",)
    assert plan.quantised.original == ("llama-2-7b", "llama-2-13b")
    assert plan.quantised.repositories[0] == "meta-llama/Llama-2-7b-hf"


def test_a_plan_lists_each_weight_format_with_what_moves_in_it() -> None:
    plan = config.load(ROOT / "params.yaml").plan("paper")
    restricted = [("llama-2-7b", "restricted", x) for x in ("float32", "bfloat16", "int8", "nf4")]
    assert plan.formats == (*restricted, ("llama-2-7b", "full", "dequantised"))


def test_a_study_of_one_family_has_no_quantised_one() -> None:
    plan = configured().plan("demo")
    assert plan.quantised is None
    assert plan.formats == ()
    assert [family.name for family in plan.families] == ["mini"]


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [
        ("demo-llama", "transfer.burn_in", 30),
        ("sizes", "search.sgld.lr", [1e-7]),
        ("llama2", "transfer.factors", [0.1, 1.0]),
    ],
)
def test_an_experiment_changes_the_family_that_it_names_and_no_other(
    tmp_path: Path, family: str, key: str, value: object
) -> None:
    path, name = tmp_path / "params.yaml", f"families.{family}.{key}"
    path.write_text(TEXT)
    apply_overrides(str(path), [f"{name}={value}"])
    assert config.load(path) == reading.build(changed(DATA, {name: value}))


def test_checkpoints_are_models_in_the_order_of_their_steps() -> None:
    commits = {2000: "b" * 40, 512: "a" * 40}
    hub = {"source": "checkpoints", "repository": "a/pythia", "at": commits}
    disk = {"source": "checkpoints", "at": {8: "steps/8", 1: "steps/1"}}
    found = sources.each_training(
        {"hub": sources.Checkpoints(**hub), "disk": sources.Checkpoints(**disk)}
    )
    assert list(found) == ["hub-step512", "hub-step2000", "disk-step1", "disk-step8"]
    first, _, folder, _ = found.values()
    assert isinstance(first, sources.HubCheckpoint)
    assert (first.repository, first.revision, first.of) == ("a/pythia", "a" * 40, "hub")
    assert isinstance(folder, sources.DiskCheckpoint)
    assert (folder.path, folder.step) == ("steps/1", 1)
    assert sources.earlier(found) == ("hub-step512", "disk-step1")
