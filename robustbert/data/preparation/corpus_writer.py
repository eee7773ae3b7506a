"""Writes a corpus as it streams in: bounded memory, and nothing that looks whole before everything is there."""

import fcntl
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robustbert.data.corpus import DTYPE_CODES, INDEX_HEADER, INDEX_VERSION, MAGIC, Manifest, corpus_file, refuse_files_of_others
from robustbert.data.errors import DataError
from robustbert.data.preparation.not_taken import summary_of
from robustbert.data.tokenizer import Tokenizer

_ENDINGS = ("bin", "idx", "counts.npy")
_COPY_ITEMS = 1 << 20


def token_dtype(vocab_size: int) -> np.dtype:
    """uint16 where the vocabulary fits (megatron-core's own rule: below 65,500 ids), else int32."""
    return np.dtype(np.uint16 if vocab_size < 65_500 else np.int32)


@dataclass(frozen=True)
class WriterState:
    """How far a corpus is written; the .partial files hold at least this much."""

    num_characters: int = 0
    num_documents: int = 0
    num_sentences: int = 0
    num_tokens: int = 0
    document_start: int = 0  # sentences before the document that is being written


class CorpusWriter:
    """Writes one corpus; use it as a context manager, call finish() at its end.

    Everything goes to PREFIX.*.partial, held under a lock; finish() renames the files and writes the manifest last.
    A run that ends before (also by kill -9) leaves only .partial files, which the next one overwrites, or goes on with
    from a `state` that an earlier writer told; one that ends by an exception leaves none, unless keep() was called.
    DataError: the corpus is there already (unless `overwrite`), another process is writing it, the folder is not
    writable, or the .partial files do not hold the state.
    """

    def __init__(
        self,
        prefix: str | Path,
        tokenizer: Tokenizer,
        tokenizer_dir: str | Path,
        overwrite: bool = False,
        state: WriterState = WriterState(),
    ):
        self.prefix = Path(prefix)
        self._tokenizer, self._tokenizer_dir = tokenizer, Path(tokenizer_dir)
        self.dtype = token_dtype(tokenizer.vocab_size)
        self._restore_counts(state)
        self._counts = np.zeros(tokenizer.vocab_size, np.int64)
        self._hash = hashlib.sha256()
        self._keeps_partials = False
        self._refuse_existing(overwrite)
        try:
            self.prefix.parent.mkdir(parents=True, exist_ok=True)
            self._bin = _open_locked(corpus_file(prefix, "bin.partial"))
            self._lengths = open(corpus_file(prefix, "lengths.partial"), "ab+")
            self._documents = open(corpus_file(prefix, "documents.partial"), "ab+")
            self._cut_partials()
        except OSError as error:
            raise DataError(f"{prefix}: cannot be written ({error}); choose another place for the data") from None

    def __enter__(self) -> "CorpusWriter":
        return self

    def __exit__(self, *_exception) -> None:
        if self._keeps_partials:
            self._close()
        else:
            self.discard()

    def begin_document(self) -> None:
        """What is added from here on belongs to a new document; a document without sentences leaves no trace."""
        if self.num_sentences > self._document_start:
            self._documents.write(np.int64(self.num_sentences).tobytes())
            self.num_documents += 1
            self._document_start = self.num_sentences

    def add_sentences(self, tokens: np.ndarray, lengths: np.ndarray, num_characters: int = 0) -> None:
        """Add sentences to the document: their ids one after another, their lengths (int32, above 0), their text's size."""
        self.num_characters += num_characters
        content = tokens.astype(self.dtype, copy=False).tobytes()
        self._bin.write(content)
        self._hash.update(content)
        self._lengths.write(lengths.astype(np.int32, copy=False).tobytes())
        self._counts += np.bincount(tokens, minlength=len(self._counts))
        self.num_sentences += len(lengths)
        self.num_tokens += len(tokens)

    def state(self) -> WriterState:
        """How far the corpus is; after flush() the files hold this much even if the machine stops."""
        counts = self.num_characters, self.num_documents, self.num_sentences, self.num_tokens
        return WriterState(*counts, self._document_start)

    def flush(self) -> None:
        """Bring everything to the disk."""
        for file in (self._bin, self._lengths, self._documents):
            file.flush()
            os.fsync(file.fileno())

    def keep(self) -> None:
        """From here on an exception leaves the .partial files: a later writer goes on with them."""
        self._keeps_partials = True

    def finish(self, source: dict, not_taken: dict | None = None, remarks: dict | None = None) -> Manifest:
        """Make the corpus whole: index, counts, manifest. DataError where no sentence was added."""
        manifest = self.complete(source, not_taken, remarks)
        publish(self.prefix)
        return manifest

    def complete(self, source: dict, not_taken: dict | None = None, remarks: dict | None = None) -> Manifest:
        """Write the files that finish() renames; publish() does so later."""
        self.begin_document()
        if self.num_sentences == 0:
            text = source.get("text", source)
            left_out = f"; not taken: {summary_of(not_taken)}" if not_taken else ""
            raise DataError(f"{self.prefix}: the source holds no text ({text}){left_out}; check the path and the reader")
        self._bin.flush()
        os.fsync(self._bin.fileno())
        idx_size, idx_sha256 = self._write_index()
        with open(corpus_file(self.prefix, "counts.npy.partial"), "wb") as file:
            np.save(file, self._counts)
        manifest = Manifest(
            tokenizer_sha256=self._tokenizer.sha256,
            vocab_size=self._tokenizer.vocab_size,
            num_characters=self.num_characters,
            num_documents=self.num_documents,
            num_sentences=self.num_sentences,
            num_tokens=self.num_tokens,
            tokenizer=os.path.relpath(self._tokenizer_dir, self.prefix.parent),
            source=source,
            bin_size=self.num_tokens * self.dtype.itemsize,
            bin_sha256=self._hash.hexdigest(),
            idx_size=idx_size,
            idx_sha256=idx_sha256,
            not_taken=not_taken or {},
            remarks=remarks or {},
        )
        with open(corpus_file(self.prefix, "json.partial"), "w", encoding="utf-8") as file:
            file.write(manifest.to_json())
            file.flush()
            os.fsync(file.fileno())
        return manifest

    def discard(self) -> None:
        """Close the files and delete what was not finished; does nothing after finish()."""
        self._close()
        discard_partials(self.prefix)

    def _close(self) -> None:
        for file in (self._bin, self._lengths, self._documents):
            file.close()

    def _restore_counts(self, state: WriterState) -> None:
        self.num_characters, self.num_documents = state.num_characters, state.num_documents
        self.num_sentences, self.num_tokens = state.num_sentences, state.num_tokens
        self._document_start = state.document_start

    def _cut_partials(self) -> None:
        """Cut the files to what the state says, and read the tokens again for their hash and counts."""
        sizes = self.num_tokens * self.dtype.itemsize, self.num_sentences * 4, self.num_documents * 8
        for file, size in zip((self._bin, self._lengths, self._documents), sizes):
            if os.fstat(file.fileno()).st_size < size:
                raise DataError(
                    f"{file.name}: is shorter than it was; delete the .journal beside it to prepare the corpus from the start"
                )
            file.truncate(size)
        for tokens in _parts(self._bin, self.dtype):
            self._hash.update(tokens.tobytes())
            self._counts += np.bincount(tokens, minlength=len(self._counts))

    def _refuse_existing(self, overwrite: bool) -> None:
        refuse_files_of_others(self.prefix)
        existing = [p for p in (corpus_file(self.prefix, e) for e in ("json", "bin", "idx")) if p.exists()]
        if existing and not overwrite:
            raise DataError(f"{existing[0]}: exists already; pass --overwrite to replace it, or choose another output")

    def _write_index(self) -> tuple[int, str]:
        digest = hashlib.sha256()
        with open(corpus_file(self.prefix, "idx.partial"), "wb") as file:

            def write(content: bytes) -> None:
                file.write(content)
                digest.update(content)

            write(INDEX_HEADER.pack(MAGIC, INDEX_VERSION, DTYPE_CODES[self.dtype], self.num_sentences, self.num_documents + 1))
            for lengths in _parts(self._lengths, np.int32):
                write(lengths.tobytes())
            start = 0
            for lengths in _parts(self._lengths, np.int32):
                ends = start + np.cumsum(lengths, dtype=np.int64) * self.dtype.itemsize
                write(np.concatenate([[start], ends[:-1]]).astype(np.int64).tobytes())
                start = int(ends[-1])
            write(np.int64(0).tobytes())
            for documents in _parts(self._documents, np.int64):
                write(documents.tobytes())
            file.flush()
            os.fsync(file.fileno())
            return file.tell(), digest.hexdigest()


def publish(prefix: str | Path) -> None:
    """Rename the files of complete(), the manifest last; may be called again after an interruption."""
    if not corpus_file(prefix, "json.partial").exists():
        return  # done before
    corpus_file(prefix, "json").unlink(missing_ok=True)  # from here on an old corpus does not count any more
    for ending in (*_ENDINGS, "json"):
        if corpus_file(prefix, f"{ending}.partial").exists():
            os.replace(corpus_file(prefix, f"{ending}.partial"), corpus_file(prefix, ending))


def discard_partials(prefix: str | Path) -> None:
    """Delete what a writer left that did not finish."""
    for ending in (*_ENDINGS, "lengths", "documents", "json"):
        corpus_file(prefix, f"{ending}.partial").unlink(missing_ok=True)


def _parts(file, dtype):
    file.flush()
    file.seek(0)
    while content := file.read(_COPY_ITEMS * np.dtype(dtype).itemsize):
        yield np.frombuffer(content, dtype)


def _open_locked(path: Path):
    # The lock ends with the process, however it ends; the inode is compared because a finished writer renames the file.
    file = open(path, "ab+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path).st_ino != os.fstat(file.fileno()).st_ino:
            raise BlockingIOError
    except (BlockingIOError, FileNotFoundError):
        file.close()
        raise DataError(f"{path}: another process is writing this corpus; wait for it, or choose another output") from None
    except OSError:
        pass  # a file system without locks
    return file
