"""The artifact as a research object, ro-crate-metadata.json (RO-Crate 1.1, Workflow RO-Crate 1.0),
from what the repository says of itself.

    python docs/crate.py

It describes the files that git has, not a run of them: who ran what, when and where stands in
results/<study>/provenance.json.
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

FILES = {  # what is described, and as what
    "params.yaml": "Everything that a result depends on",
    "data/published.yaml": "The figures that the study of November 2023 published",
    "dvc.lock": "Hashes of the inputs, outputs, code and parameters of each stage",
    "README.md": "What it found, how to run it",
    "CITATION.cff": "How to cite it",
    "CHANGELOG.md": "What changed",
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
    ".md": "text/markdown",
    ".svg": "image/svg+xml",
}
FORMATS |= {".tex": "application/x-tex", ".yaml": "application/yaml", ".lock": "text/plain"}
FOLDERS = {
    "replicate/": "The package",
    "tests/": "Its tests",
    "benchmarks/": "Its benchmarks",
    "docs/": "Its documentation",
}


def to(*names: str) -> Any:
    links = [{"@id": name} for name in names]
    return links[0] if len(links) == 1 else links


def file(name: str, said: str, **more: Any) -> Entity:
    path = ROOT / name
    form = "application/yaml" if name == "dvc.lock" else FORMATS.get(path.suffix, "text/plain")
    return {"@id": name, "@type": "File", "name": said, "encodingFormat": form, **more}


def results() -> list[Entity]:
    """The folders of results and their files, each conforming to its schema; the first is the
    folder of all.
    """
    top, *folders = [
        ROOT / "results",
        *sorted(path for path in (ROOT / "results").iterdir() if path.is_dir()),
    ]
    found: list[Entity] = []
    for folder in (top, *folders):
        inside = [
            file(str(path.relative_to(ROOT)), title(path), **schema(path))
            for path in sorted(folder.glob("*.json"))
        ]
        parts = [entity["@id"] for entity in inside] + [
            f"{each.relative_to(ROOT)}/" for each in folders if folder == top
        ]
        found += [
            {
                "@id": f"{folder.relative_to(ROOT)}/",
                "@type": "Dataset",
                "name": title(folder),
                "hasPart": to(*parts),
            },
            *inside,
        ]
    return found


def title(path: Path) -> str:
    if path.name == "results":
        return "What the stages found, as JSON"
    if path.is_dir():
        return {
            "schemas": "JSON Schemas of the results",
            "published": "The published figures, judged",
        }.get(path.name, f"Results of the {path.name} study")
    return (
        f"JSON Schema of {path.name.removesuffix('.schema.json')}"
        if path.parent.name == "schemas"
        else path.stem.capitalize()
    )


def schema(path: Path) -> Entity:
    known = ROOT / "results" / "schemas" / f"{path.stem}.schema.json"
    return (
        {"conformsTo": to(str(known.relative_to(ROOT)))}
        if known.is_file() and path.parent.name != "schemas"
        else {}
    )


def crate() -> Entity:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    dvc = re.search(r'"dvc==([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found, about = results(), " ".join(citation["abstract"].split())
    described = [
        file(name, said, **({"about": to("./")} if name == "README.md" else {}))
        for name, said in FILES.items()
    ]
    folders = [{"@id": name, "@type": "Dataset", "name": said} for name, said in FOLDERS.items()]
    workflow = file(
        "dvc.yaml",
        "The pipeline",
        programmingLanguage=to(DVC),
        image=to("docs/pipeline.svg"),
        license=to(LICENCE),
        creator=to(AUTHORS),
    )
    workflow |= {
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
        "input": to("#params"),
        "output": to("#results"),
        "conformsTo": to(WORKFLOW),
    }
    workflow["description"] = (
        "Stages of both studies; `dvc repro demo` runs the demo study, `dvc repro` everything"
    )
    parameters = [
        {
            "@id": "#params",
            "@type": "FormalParameter",
            "name": "params.yaml",
            "additionalType": "File",
            "workExample": to("params.yaml"),
        },
        {
            "@id": "#results",
            "@type": "FormalParameter",
            "name": "results",
            "additionalType": "Dataset",
            "workExample": to("results/"),
        },
    ]
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": citation["title"],
        "description": about,
        "version": citation["version"],
        "datePublished": str(citation.get("date-released", "2026")),
        "license": to(LICENCE),
        "author": to(AUTHORS),
        "creator": to(AUTHORS),
        "publisher": to(AUTHORS),
        "keywords": ", ".join(citation["keywords"]),
        "citation": to(*(reference["url"] for reference in citation["references"])),
        "mainEntity": to("dvc.yaml"),
        "hasPart": to(*(entity["@id"] for entity in (workflow, *described, *folders, found[0]))),
    }
    descriptor = {
        "@id": "ro-crate-metadata.json",
        "@type": "CreativeWork",
        "about": to("./"),
        "conformsTo": to("https://w3id.org/ro/crate/1.1", PROFILE),
    }
    context = [
        {"@id": AUTHORS, "@type": "Organization", "name": citation["authors"][0]["name"]},
        {"@id": LICENCE, "@type": "CreativeWork", "name": "MIT License", "identifier": LICENCE},
        {
            "@id": PROFILE,
            "@type": ["CreativeWork", "Profile"],
            "name": "Workflow RO-Crate",
            "version": "1.0",
        },
        {
            "@id": WORKFLOW,
            "@type": ["CreativeWork", "Profile"],
            "name": "ComputationalWorkflow",
            "version": "1.0",
        },
        {
            "@id": DVC,
            "@type": ["ComputerLanguage", "SoftwareApplication"],
            "name": "DVC",
            "identifier": to("https://dvc.org"),
            "url": to("https://dvc.org"),
            "version": dvc[1] if dvc else "",
        },
        *(
            {"@id": r["url"], "@type": "ScholarlyArticle", "name": r["title"]}
            for r in citation["references"]
        ),
    ]
    graph = [descriptor, root, workflow, *parameters, *described, *folders, *found, *context]
    return {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph}


def text() -> str:
    return json.dumps(crate(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    (ROOT / "ro-crate-metadata.json").write_text(text(), encoding="utf-8")
