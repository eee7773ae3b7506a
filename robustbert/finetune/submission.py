"""GLUE's leaderboard: the zip of one .tsv file a test set, under the official names, as its server checks them."""

import os
import zipfile
from pathlib import Path

from robustbert.finetune.settings import FinetuneError

# Lines below the header of every file that the server takes: the official test sets
TEST_ROWS = {
    "CoLA.tsv": 1063,
    "SST-2.tsv": 1821,
    "MRPC.tsv": 1725,
    "STS-B.tsv": 1379,
    "QQP.tsv": 390965,
    "MNLI-m.tsv": 9796,
    "MNLI-mm.tsv": 9847,
    "QNLI.tsv": 5463,
    "RTE.tsv": 3000,
    "WNLI.tsv": 146,
    "AX.tsv": 1104,
}
_DATE = (2019, 7, 26, 0, 0, 0)  # fixed: the same predictions give the same bytes


def check_file(name: str, text: str, rows: dict[str, int] = TEST_ROWS) -> None:
    """FinetuneError unless a file is one that the server takes: its name, its header, its number of lines."""
    if name not in rows:
        raise FinetuneError(f"the leaderboard takes no file {name}, but {', '.join(rows)}")
    header, *lines = text.splitlines()
    assert header == "index\tprediction", header
    if len(lines) != rows[name]:
        raise FinetuneError(
            f"{name} would have {len(lines):,} predictions, the leaderboard wants {rows[name]:,}: its test file is not the "
            "official one"
        )


def write_zip(path: Path, files: dict[str, str], rows: dict[str, int] = TEST_ROWS) -> list[str]:
    """Write the archive, whole or not at all; returns the names that the leaderboard wants as well.

    files: content by name. FinetuneError where a file is not as the server wants it, or `path` exists.
    """
    if path.exists():
        raise FinetuneError(f"{path} exists; nothing is overwritten, choose another --output")
    for name, text in files.items():
        check_file(name, text, rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(files):
                archive.writestr(zipfile.ZipInfo(name, _DATE), files[name], zipfile.ZIP_DEFLATED)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return [name for name in rows if name not in files]
