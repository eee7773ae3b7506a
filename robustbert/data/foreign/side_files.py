"""What is made once of foreign data so that they open at once: two small files in a folder of ours; the data are not written.

NAME-HASH.arrays.npy holds where every 512th run starts, the documents' bounds where the format has none, the table of ids, and
how often each id occurs; NAME-HASH.json holds the facts and is written last. The hash is of the data's absolute path and the tokenizer, so that
several runs may share a folder. Both appear whole or not at all: two runs may make them at once.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from robustbert.data.blocks.block_index import read_block_index, write_block_index
from robustbert.data.errors import DataError
from robustbert.data.foreign.frames import STRIDE, Frames
from robustbert.data.foreign.layouts import ForeignIndex
from robustbert.data.tokenizer import Tokenizer

Progress = Callable[[str, int, int], None]

_FORMAT, _VERSION = "robustbert foreign corpus", 1
_WINDOW = 1 << 20  # sequences looked at together: bounds the memory


@dataclass(frozen=True)
class Facts:
    """What the .json says. identity: see identity.py; num_tokens, num_sentences, num_documents: frames and empty ones left out."""

    path: str
    identity: str
    tokenizer_sha256: str
    numbering: str
    num_tokens: int
    num_sentences: int
    num_documents: int
    num_counted: int  # tokens that the counts of ids are of
    frames: dict

    @property
    def fingerprint(self) -> int:
        """63 bits that differ from any other content's: what was built on it says so with them."""
        content = json.dumps([self.identity, self.tokenizer_sha256, self.numbering, self.frames]).encode()
        return int.from_bytes(hashlib.sha256(content).digest()[:8], "little") >> 1


def side_prefix(prefix: str | Path, folder: str | Path, tokenizer: Tokenizer) -> Path:
    """Where the side files of some data lie: a prefix in `folder`, also of their blocks."""
    path = os.path.abspath(prefix)
    digest = hashlib.sha256(f"{path}\n{tokenizer.sha256}".encode()).hexdigest()
    return Path(folder) / f"{Path(path).name}-{digest[:12]}"


def read_facts(at: Path, identity: str) -> Facts | None:
    """The facts at a side prefix; None where there are none. DataError: they are of other content, or damaged."""
    path = Path(f"{at}.json")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete it, it is made again") from None
    names = {f.name for f in fields(Facts)}
    if not isinstance(content, dict) or content.pop("format", None) != _FORMAT or content.pop("version", None) != _VERSION:
        raise DataError(f"{path}: not written by this version of robustbert; delete it, it is made again")
    if content.keys() != names:
        raise DataError(f"{path}: damaged; delete it, it is made again")
    facts = Facts(**content)
    if facts.identity != identity:
        raise DataError(
            f"{facts.path}: its data changed since a run read them (identity {facts.identity[:12]} then, {identity[:12]} now); put the "
            f"former data back, or if the change is meant, delete {path} and start a new run"
        )
    return facts


def write_side_files(at: Path, facts: Facts, arrays: list[np.ndarray]) -> None:
    """Write both files. DataError: the folder cannot be written."""
    try:
        at.parent.mkdir(parents=True, exist_ok=True)
        write_block_index(_arrays_file(at), facts.fingerprint, arrays)
        if read_side_arrays(at, facts) is None:
            raise PermissionError(0, "not writable, or full")
        partial = at.with_name(f"{at.name}.json.{secrets.token_hex(4)}.partial")
        partial.write_text(json.dumps({"format": _FORMAT, "version": _VERSION, **asdict(facts)}, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, f"{at}.json")
    except OSError as error:
        reason = f"{at.parent}: the index of {facts.path} cannot be written ({error.strerror or error})"
        raise DataError(f"{reason}; set data.index_dir to a folder with space") from None


def read_side_arrays(at: Path, facts: Facts) -> list[np.ndarray] | None:
    """coarse, document bounds (empty where the index has them), table of ids (empty where they are equal), counts of ids.

    None where they are absent or damaged.
    """
    return read_block_index(_arrays_file(at), facts.fingerprint)


def build_index(
    index: ForeignIndex, frames: Frames, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray, int, int, int]:
    """One pass over the index: coarse, bounds (empty where the index' own serve), numbers of tokens, sentences, documents.

    DataError: sequences that do not follow each other, or have no room for the frames; documents out of order.
    """
    c = frames.per_run
    coarse, bounds, num_sentences, expected = [], [], 0, 0
    after_empty = True
    for start in range(0, index.num_sequences, _WINDOW):
        lengths, starts = index.lengths(start, start + _WINDOW), index.starts(start, start + _WINDOW)
        _check_window(index, frames, start, lengths, starts, expected)
        expected = int(starts[-1] + lengths[-1])
        has_tokens = lengths > frames.head + frames.tail
        num_sentences += int(np.count_nonzero(has_tokens))
        if not frames.ends_documents:
            first = -start % STRIDE
            coarse.append(starts[first::STRIDE] - c * np.arange(start + first, start + len(starts), STRIDE))
        if index.document_bounds is None:
            is_before_empty = np.append(after_empty, ~has_tokens[:-1])
            bounds.append(start + np.flatnonzero(has_tokens & is_before_empty))
            after_empty = not has_tokens[-1]
        if progress is not None:
            progress(f"index of {index.prefix.name}", min(start + _WINDOW, index.num_sequences), index.num_sequences)
    own_bounds = np.empty(0, np.int64)
    if index.document_bounds is None:
        own_bounds = np.concatenate([*bounds, [index.num_sequences]]).astype(np.int64)
        own_bounds[0] = 0
    elif _has_empty_documents(index):
        own_bounds = np.unique(index.document_bounds)
    num_documents = (len(own_bounds) if len(own_bounds) else len(index.document_bounds)) - 1
    if frames.ends_documents:
        num_runs, document_bounds = num_documents, own_bounds if len(own_bounds) else index.document_bounds
        runs = np.arange(0, num_runs, STRIDE)
        coarse = [index.starts_in_order(document_bounds[runs]) - runs]
    else:
        num_runs = index.num_sequences
    return np.concatenate(coarse), own_bounds, index.num_tokens - c * num_runs, num_sentences, num_documents


def _check_window(
    index: ForeignIndex, frames: Frames, start: int, lengths: np.ndarray, starts: np.ndarray, expected: int
) -> None:
    follows = starts == np.append(expected, starts[:-1] + lengths[:-1])
    if not follows.all() or lengths.min() < 0:
        number = start + int(np.argmin(follows & (lengths >= 0)))
        raise DataError(
            f"{index.path}: sequence {number} does not follow the one before it in the .bin; it is damaged, or of another .bin"
        )
    if lengths.min() < frames.head + frames.tail:
        number = start + int(np.argmin(lengths))
        raise DataError(
            f"{index.prefix}: sequence {number} has {lengths.min()} ids, no room for the special ones around it ({frames.in_words()})"
        )
    if index.sequence_modes is not None and index.sequence_modes[start : start + len(lengths)].any():
        number = start + int(np.flatnonzero(index.sequence_modes[start : start + len(lengths)])[0])
        raise DataError(f"{index.path}: multimodal data, sequence {number} is no text (its mode is not 0); only text is read")


def _has_empty_documents(index: ForeignIndex) -> bool:
    has_empty = False
    for start in range(0, len(index.document_bounds), _WINDOW):
        steps = np.diff(index.document_bounds[start : start + _WINDOW + 1])
        if (steps < 0).any():
            number = start + int(np.flatnonzero(steps < 0)[0])
            raise DataError(f"{index.path}: document {number} ends before it starts; it is damaged")
        has_empty |= bool((steps == 0).any())
    return has_empty


def _arrays_file(at: Path) -> Path:
    return Path(f"{at}.arrays.npy")
