"""Indexed data on disk: reading a corpus of token ids, with every file checked against its manifest.

A corpus is PREFIX.bin and PREFIX.idx in megatron-core's indexed format (one sequence a sentence, documents marked),
PREFIX.counts.npy (how often each id occurs) and PREFIX.json, the manifest, which is written last: without it the rest
does not count. preparation/corpus_writer.py writes them.
"""

import hashlib
import json
import struct
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path

import numpy as np

from robustbert.data.errors import DataError

MAGIC = b"MMIDIDX\x00\x00"
INDEX_VERSION = 1
# Magic, version, code of the dtype, number of sequences, length of document_indices; little endian, unaligned.
INDEX_HEADER = struct.Struct("<9sQBQQ")
DTYPE_CODES = {np.dtype(np.int32): 4, np.dtype(np.int64): 5, np.dtype(np.uint16): 8}
_DTYPES = {code: dtype for dtype, code in DTYPE_CODES.items()}

MANIFEST_FORMAT = "robustbert corpus"
MANIFEST_VERSION = 1
_PREPARE_AGAIN = "prepare it again with tools/preprocess --overwrite"


@dataclass(frozen=True)
class Manifest:
    """What PREFIX.json says: counts, what the corpus was made of and with, and its files' sizes (bytes) and hashes."""

    tokenizer_sha256: str
    vocab_size: int
    num_characters: int  # of the text
    num_documents: int
    num_sentences: int
    num_tokens: int
    tokenizer: str  # the tokenizer's folder, relative to the manifest
    source: dict  # where the text came from; equal sources give equal corpora
    bin_size: int
    bin_sha256: str
    idx_size: int
    idx_sha256: str
    # What is not in the corpus, of the whole source: bad_input, duplicates, and what the reader left out, each with its count;
    # incomplete_sentences lack words, most often those of missing_words_of.
    not_taken: dict = field(default_factory=dict)
    # What its owner should know of what was taken: the number of such remarks, and the first of them.
    remarks: dict = field(default_factory=dict)

    def to_json(self) -> str:
        """The manifest's file content."""
        return json.dumps({"format": MANIFEST_FORMAT, "version": MANIFEST_VERSION, **asdict(self)}, indent=1) + "\n"


def corpus_file(prefix: str | Path, ending: str) -> Path:
    """PREFIX.ending as a path; a prefix may hold dots."""
    return Path(f"{prefix}.{ending}")


def read_manifest(prefix: str | Path) -> Manifest:
    """Read PREFIX.json; DataError where it is missing (also: the preparation was interrupted), damaged or newer."""
    path = corpus_file(prefix, "json")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: {_why_no_manifest(prefix)}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {_PREPARE_AGAIN}") from None
    if not isinstance(content, dict) or content.pop("format", None) != MANIFEST_FORMAT:
        raise DataError(
            f"{path}: is not the manifest of a corpus; data.train and data.valid take the prefix of a .bin and .idx"
        )
    version = content.pop("version", None)
    needed = {f.name for f in fields(Manifest) if f.default_factory is MISSING}
    if version != MANIFEST_VERSION or not needed <= content.keys() <= {f.name for f in fields(Manifest)}:
        raise DataError(f"{path}: format version {version}, this robustbert reads version {MANIFEST_VERSION}; {_PREPARE_AGAIN}")
    return Manifest(**content)


def has_manifest(prefix: str | Path) -> bool:
    """Whether PREFIX.json is, or begins as, a manifest of ours; cheap, and true of a damaged one."""
    try:
        with open(corpus_file(prefix, "json"), "rb") as file:
            return MANIFEST_FORMAT.encode() in file.read(64)
    except OSError:
        return False


def refuse_files_of_others(prefix: str | Path) -> None:
    """DataError where files lie in the place of a corpus, and nothing says that they are ours: they are never replaced."""
    if has_manifest(prefix) or corpus_file(prefix, "json.partial").exists():
        return
    for path in (corpus_file(prefix, ending) for ending in ("json", "bin", "idx", "counts.npy")):
        if path.exists():
            raise DataError(
                f"{path}: not known to be of tools/preprocess (no manifest of its own beside it), so it is never replaced; "
                "choose another output, or move the file away"
            )


def _why_no_manifest(prefix: str | Path) -> str:
    if any(corpus_file(prefix, f"{ending}.partial").exists() for ending in ("bin", "idx", "json")):
        return f"{prefix}.* has no manifest: its preparation did not finish; {_PREPARE_AGAIN}"
    if any(corpus_file(prefix, ending).exists() for ending in ("bin", "idx")):
        return (
            f"{prefix}.* was not made by tools/preprocess, or lost its manifest; data.train and data.valid take indexed data of "
            "Megatron-LM and fairseq as they are, tools/inspect says what it is"
        )
    if Path(prefix).is_file():
        return f"{prefix} is a file and no prefix of indexed data; if it holds text, give it as `text: {prefix}`"
    return "no such corpus; prepare it with tools/preprocess"


class IndexedCorpus:
    """A corpus opened for reading, by memory map: opening costs no memory and no reading of the tokens.

    tokens: all ids, one after another (uint16 or int32). sentence_lengths: int32, tokens of each.
    document_indices: int64, the number of the first sentence of each document, and at the end num_sentences.
    side_prefix: where files about it may be put. has_sentences: False where a document is one sequence (foreign/corpus.py).
    DataError: a file is missing, cut off, of another format, or does not fit its manifest.
    """

    has_sentences = True

    def __init__(self, prefix: str | Path):
        self.prefix = self.side_prefix = Path(prefix)
        self.manifest = read_manifest(prefix)
        self._check_size("bin", self.manifest.bin_size)
        self._check_size("idx", self.manifest.idx_size)
        self._open_index()
        self._open_tokens()

    def __len__(self) -> int:
        return self.num_sentences

    @property
    def num_tokens(self) -> int:
        """All tokens of the corpus, no specials among them."""
        return len(self.tokens)

    @property
    def num_documents(self) -> int:
        """Documents of the corpus."""
        return len(self.document_indices) - 1

    @property
    def tokenizer_dir(self) -> Path:
        """The folder of the tokenizer that made the ids."""
        return self.prefix.parent / self.manifest.tokenizer

    @cached_property
    def fingerprint(self) -> int:
        """63 bits that differ from any other content's: what was built on this corpus says so with them."""
        digest = hashlib.sha256((self.manifest.bin_sha256 + self.manifest.idx_sha256).encode()).digest()
        return int.from_bytes(digest[:8], "little") >> 1

    @property
    def document_ends(self) -> np.ndarray:
        """The token offset at which each document ends: int64 (num_documents,), a copy."""
        starts = self._pointers[self.document_indices[1:-1]] // self.tokens.itemsize
        return np.append(starts, self.num_tokens)

    def document_lengths(self, start: int, stop: int) -> np.ndarray:
        """Tokens of the documents start .. stop - 1: int64, a copy."""
        firsts = self.document_indices[start : stop + 1]
        offsets = self._pointers[np.minimum(firsts, self.num_sentences - 1)] // self.tokens.itemsize
        return np.diff(np.where(firsts < self.num_sentences, offsets, self.num_tokens))

    def sentence_starts(self, start: int, stop: int) -> np.ndarray:
        """The token offsets at which the sentences start .. stop - 1 start: int64, a copy."""
        return self._pointers[start:stop] // self.tokens.itemsize

    def sentence_ends(self, start: int, stop: int) -> np.ndarray:
        """The token offsets at which the sentences start .. stop - 1 end: int64, a copy."""
        return self._pointers[start:stop] // self.tokens.itemsize + self.sentence_lengths[start:stop]

    def sentence(self, index: int) -> np.ndarray:
        """The ids of one sentence."""
        start = int(self._pointers[index]) // self.tokens.itemsize
        return self.tokens[start : start + int(self.sentence_lengths[index])]

    def token_counts(self) -> np.ndarray:
        """How often each id occurs: int64 (vocab_size,)."""
        path = corpus_file(self.prefix, "counts.npy")
        try:
            counts = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path}: cannot be read ({error}); {_PREPARE_AGAIN}") from None
        if counts.shape != (self.manifest.vocab_size,) or int(counts.sum()) != self.num_tokens:
            raise DataError(f"{path}: counts {int(counts.sum())} tokens, the corpus has {self.num_tokens}; {_PREPARE_AGAIN}")
        return counts

    def verify(self) -> None:
        """Read both files whole and compare their hashes with the manifest's; DataError where they differ."""
        for ending, expected in (("bin", self.manifest.bin_sha256), ("idx", self.manifest.idx_sha256)):
            path = corpus_file(self.prefix, ending)
            with open(path, "rb") as file:
                actual = hashlib.file_digest(file, "sha256").hexdigest()
            if actual != expected:
                raise DataError(f"{path}: its content changed since it was prepared (sha256 differs); {_PREPARE_AGAIN}")

    def _check_size(self, ending: str, expected: int) -> None:
        path = corpus_file(self.prefix, ending)
        if not path.is_file():
            raise DataError(f"{path}: missing, its manifest is there; copy it again, or {_PREPARE_AGAIN}")
        actual = path.stat().st_size
        if actual != expected:
            state = "cut off" if actual < expected else "too long"
            raise DataError(f"{path}: {state}, it has {actual} bytes of {expected}; copy it again, or {_PREPARE_AGAIN}")

    def _open_index(self) -> None:
        path = corpus_file(self.prefix, "idx")
        with open(path, "rb") as file:
            header = file.read(INDEX_HEADER.size)
        magic, version, code, num_sentences, num_indices = (
            INDEX_HEADER.unpack(header) if len(header) == INDEX_HEADER.size else (b"", 0, 0, 0, 0)
        )
        if magic != MAGIC or version != INDEX_VERSION or code not in _DTYPES:
            raise DataError(f"{path}: not an index of megatron's format (it starts with {header[:9]!r}); {_PREPARE_AGAIN}")
        size = INDEX_HEADER.size + num_sentences * (4 + 8) + num_indices * 8
        if size != self.manifest.idx_size or num_sentences != self.manifest.num_sentences:
            expected = self.manifest.num_sentences
            raise DataError(f"{path}: names {num_sentences} sentences, its manifest {expected}; {_PREPARE_AGAIN}")
        self.dtype, self.num_sentences = _DTYPES[code], num_sentences
        content = memoryview(np.memmap(path, np.uint8, mode="r"))
        at = INDEX_HEADER.size
        self.sentence_lengths = np.frombuffer(content, np.int32, num_sentences, at)
        self._pointers = np.frombuffer(content, np.int64, num_sentences, at + 4 * num_sentences)
        self.document_indices = np.frombuffer(content, np.int64, num_indices, at + 12 * num_sentences)
        if num_indices == 0 or self.document_indices[-1] != num_sentences:
            raise DataError(f"{path}: its documents do not end with its last sentence; {_PREPARE_AGAIN}")

    def _open_tokens(self) -> None:
        path = corpus_file(self.prefix, "bin")
        size, num_tokens = self.manifest.bin_size, self.manifest.num_tokens
        if size != num_tokens * self.dtype.itemsize:
            raise DataError(f"{path}: {size} bytes are not {num_tokens} tokens of {self.dtype}; {_PREPARE_AGAIN}")
        # A plain array over the map: slicing numpy's memmap class costs several times as much.
        self.tokens = np.frombuffer(memoryview(np.memmap(path, np.uint8, mode="r")), self.dtype)
