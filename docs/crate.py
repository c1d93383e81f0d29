"""`python docs/crate.py` writes ro-crate-metadata.json, which describes the artifact as a research
object (RO-Crate 1.1, Workflow RO-Crate 1.0), from what the repository says of itself. It belongs to
a release, in the root of its archive, and is not in git.

It describes the files in git, not a run: results/<study>/provenance.json tells what results came
from.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
PROFILE = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
WORKFLOW = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
LICENCE, AUTHORS, DVC = "https://spdx.org/licenses/MIT", "#authors", "#dvc"
Entity = dict[str, Any]

FILES = {
    "params.yaml": "Everything that a result depends on",
    "data/published.yaml": "The figures that the study of November 2023 published",
    "dvc.lock": "Hashes of the inputs, outputs, code and parameters of each stage",
    "README.md": "What was found, and how to run it",
    "CITATION.cff": "How to cite it",
    "docs/reference/CHANGELOG.md": "What changed",
    "LICENSE": "MIT licence",
    "Dockerfile": "The replication as one container image",
    "paper/main.tex": "The write-up",
    "requirements/base.lock": "Locked packages, torch apart",
    "requirements/cuda.lock": "torch's CUDA build",
    "requirements/sbom.cdx.json": "Bill of materials of the locks (CycloneDX)",
    "docs/pipeline.svg": "The stages and what depends on what",
}
FORMATS = {
    "": "text/plain",
    ".cff": "application/yaml",
    ".json": "application/json",
    ".lock": "text/plain",
    ".md": "text/markdown",
    ".svg": "image/svg+xml",
    ".tex": "application/x-tex",
    ".yaml": "application/yaml",
}
FOLDERS = {
    "replicate/": "The package",
    "tests/": "Its tests",
    "benchmarks/": "Its benchmarks",
    "docs/": "Its documentation",
}
RESULTS = {
    "results": "What the stages found, as JSON",
    "schemas": "JSON Schemas of the results",
    "published": "The published figures, judged",
}


def to(*names: str) -> Any:
    """Returns references to entities."""
    links = [{"@id": name} for name in names]
    return links[0] if len(links) == 1 else links


def entity(name: str, kind: Any, said: str, **more: Any) -> Entity:
    return {"@id": name, "@type": kind, "name": said, **more}


def file(name: str, said: str, **more: Any) -> Entity:
    form = "application/yaml" if name == "dvc.lock" else FORMATS.get(Path(name).suffix, FORMATS[""])
    return entity(name, "File", said, encodingFormat=form, **more)


def results() -> list[Entity]:
    """Returns the folders of results and their files, with their schemas; first that of all."""
    top = ROOT / "results"
    folders = sorted(path for path in top.iterdir() if path.is_dir())
    found: list[Entity] = []
    for folder in (top, *folders):
        inside = [
            file(str(path.relative_to(ROOT)), title(path), **schema(path))
            for path in sorted(folder.glob("*.json"))
        ]
        parts = [each["@id"] for each in inside]
        parts += [f"results/{each.name}/" for each in folders if folder == top]
        said = RESULTS.get(folder.name, f"Results of the {folder.name} study")
        name = f"{folder.relative_to(ROOT)}/"
        found += [entity(name, "Dataset", said, hasPart=to(*parts)), *inside]
    return found


def title(path: Path) -> str:
    if path.parent.name == "schemas":
        return f"JSON Schema of {path.name.removesuffix('.schema.json')}"
    return path.stem.capitalize()


def schema(path: Path) -> Entity:
    name = f"results/schemas/{path.stem}.schema.json"
    return {"conformsTo": to(name)} if (ROOT / name).is_file() else {}


def crate() -> Entity:
    """Returns the whole description."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    dvc = re.search(r'"dvc==([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    described = [file(name, said) for name, said in FILES.items()]
    described[list(FILES).index("README.md")]["about"] = to("./")
    folders = [entity(name, "Dataset", said) for name, said in FOLDERS.items()]
    workflow: Entity = file(
        "dvc.yaml",
        "The pipeline",
        description="Stages of all studies: `dvc repro demo` runs the demo study, `dvc repro` all",
        programmingLanguage=to(DVC),
        image=to("docs/pipeline.svg"),
        license=to(LICENCE),
        creator=to(AUTHORS),
        input=to("#params"),
        output=to("#results"),
        conformsTo=to(WORKFLOW),
    ) | {"@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"]}
    parameters = [
        entity(f"#{name}", "FormalParameter", said, additionalType=kind, workExample=to(example))
        for name, said, kind, example in (
            ("params", "params.yaml", "File", "params.yaml"),
            ("results", "results", "Dataset", "results/"),
        )
    ]
    found = results()
    root = entity(
        "./",
        "Dataset",
        citation["title"],
        description=" ".join(citation["abstract"].split()),
        version=citation["version"],
        datePublished=str(citation.get("date-released", "2026")),
        license=to(LICENCE),
        author=to(AUTHORS),
        creator=to(AUTHORS),
        publisher=to(AUTHORS),
        keywords=", ".join(citation["keywords"]),
        citation=to(*(reference["url"] for reference in citation["references"])),
        mainEntity=to("dvc.yaml"),
        hasPart=to(*(each["@id"] for each in (workflow, *described, *folders, found[0]))),
    )
    descriptor = {
        "@id": "ro-crate-metadata.json",
        "@type": "CreativeWork",
        "about": to("./"),
        "conformsTo": to("https://w3id.org/ro/crate/1.1", PROFILE),
    }
    profile, address = ["CreativeWork", "Profile"], to("https://dvc.org")
    system = ["ComputerLanguage", "SoftwareApplication"]
    version = dvc[1] if dvc else ""
    context = [
        entity(AUTHORS, "Organization", citation["authors"][0]["name"]),
        entity(LICENCE, "CreativeWork", "MIT License", identifier=LICENCE),
        entity(PROFILE, profile, "Workflow RO-Crate", version="1.0"),
        entity(WORKFLOW, profile, "ComputationalWorkflow", version="1.0"),
        entity(DVC, system, "DVC", identifier=address, url=address, version=version),
        *(entity(r["url"], "ScholarlyArticle", r["title"]) for r in citation["references"]),
    ]
    graph = [descriptor, root, workflow, *parameters, *described, *folders, *found, *context]
    return {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph}


def text() -> str:
    """Returns what the file should hold."""
    return json.dumps(crate(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    (ROOT / "ro-crate-metadata.json").write_text(text(), encoding="utf-8")
