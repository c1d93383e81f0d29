"""Reviews: from the hub at a pinned revision, from a local file or folder, or from the built-in
grammar (grammar.py).
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from pyarrow import csv, json, parquet

from replicate.errors import UserError

READERS = {
    ".jsonl": lambda path: json.read_json(path),
    ".csv": lambda path: csv.read_csv(
        path, parse_options=csv.ParseOptions(newlines_in_values=True)
    ),
    ".parquet": lambda path: parquet.read_table(path, columns=["text"]),
}


def read(path: Path) -> list[str]:
    """The texts of a jsonl, jsonl.gz, csv or parquet file with a column `text`, or of the `aclImdb`
    tree, in their order there.

    Raises:
        UserError: no such file, an unknown format, a damaged file, no column `text`, or a row
        without text.
    """
    if path.is_dir():
        return read_tree(path)
    name = path.name.removesuffix(".gz")
    reader = READERS.get(Path(name).suffix)
    if reader is None:
        raise UserError(
            f"{path}: unknown format; give a folder aclImdb or a file ending in {', '.join(READERS)} (or .jsonl.gz, .csv.gz)"
        )
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; put it there or change the corpus's path in params.yaml"
        )
    try:
        table = reader(path)
        names = table.column_names
        texts = table.column("text").to_pylist() if names.count("text") == 1 else None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; save it as UTF-8") from None
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UserError(
            f"{path}: cannot be read ({str(error)[:120]}); replace it by a whole one"
        ) from None
    if texts is None:
        raise UserError(
            f"{path}: no column 'text' among {', '.join(names) or 'none'}, or several; rename the one that holds the reviews"
        )
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"{path}: row {row + 1} has no text; remove it")
    return texts


def read_tree(path: Path) -> list[str]:
    """The training reviews of the original IMDB archive (Maas et al. 2011):
    `train/neg/ID_RATING.txt`, then `train/pos`, by id.

    Raises:
        UserError: it is another kind of folder.
    """
    train = path if path.name == "train" else path / "train"
    files = [
        file
        for label in ("neg", "pos")
        for file in sorted(
            (train / label).glob("[0-9]*_*.txt"),
            key=lambda file: (len(file.stem.split("_")[0]), file.name),
        )
    ]
    if not files:
        raise UserError(
            f"{path}: holds no train/neg/*.txt and train/pos/*.txt; give the folder aclImdb as unpacked"
        )
    texts = []
    for file in files:
        try:
            texts.append(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{file}: cannot be read ({type(error).__name__}); unpack the archive again"
            ) from None
    return texts
