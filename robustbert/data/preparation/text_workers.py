"""What workers make of records: pieces of text, encoded; in processes of their own or in the calling one.

Results come in the order of the chunks, and only so much is under way that memory stays bounded.
"""

import contextlib
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import active_children, get_context
from typing import NamedTuple

import numpy as np

from robustbert.data.errors import DataError
from robustbert.data.preparation.duplicates import duplicate_keys
from robustbert.data.preparation.hold_out import digest_of
from robustbert.data.text.corpora.stories import Similarity, read_questions
from robustbert.data.text.readers import Position, TextSource, extract_pieces
from robustbert.data.text.records import BadInput, Lacking, LeftOut, Piece, Record
from robustbert.data.text.sentences import split_sentences
from robustbert.data.tokenizer import Tokenizer
from robustbert.data.tokenizer.encoder import CachingEncoder

_CHARS_AT_ONCE = 1 << 19  # encoded together: enough to spread overhead, few enough to bound the memory
_MAX_CHARS_UNDER_WAY = 1 << 26


@dataclass(frozen=True)
class Chunk:
    """Some records of one source, what could not be read among them, and the position after them."""

    source: int
    items: list[Record | BadInput | LeftOut]
    num_chars: int
    end: Position


class EncodedPiece(NamedTuple):
    """A piece of text as its tokens; those of all pieces of a chunk stand one after another."""

    starts_document: bool
    num_sentences: int
    num_characters: int
    digest: bytes
    keys: np.ndarray | None  # of duplicates.py, where they are asked for


@dataclass(frozen=True)
class EncodedChunk:
    """tokens: int32, of all pieces; lengths: int32, tokens of each sentence; items: in the order of the text."""

    tokens: np.ndarray
    lengths: np.ndarray
    items: list[EncodedPiece | Lacking | BadInput | LeftOut]


@dataclass
class TextWork:
    """What one process needs to make tokens of records; sent to each worker once."""

    sources: list[TextSource]
    piece_chars: list[int]
    tokenizer: Tokenizer
    duplicates: str | None = None
    thresholds: dict[int, float] = field(default_factory=dict)  # of the sources that are filtered by similarity
    _encoder: CachingEncoder | None = None
    _similarities: dict[str, Similarity] = field(default_factory=dict)

    def __getstate__(self):
        return vars(self) | {"_encoder": None, "_similarities": {}}

    def encode(self, source: int, items: list) -> EncodedChunk:
        """The pieces of the items, encoded."""
        self._encoder = self._encoder or CachingEncoder(self.tokenizer)
        encoded, tokens, lengths = [], [], []
        texts, num_chars = [], 0
        for item in self._pieces(source, items):
            if type(item) is not Piece:
                encoded.append(item)
                continue
            encoded.append(item)
            texts.append(item.text)
            num_chars += len(item.text)
            if num_chars >= _CHARS_AT_ONCE:
                self._encode_texts(texts, tokens, lengths)
                texts, num_chars = [], 0
        self._encode_texts(texts, tokens, lengths)
        return self._assemble(encoded, tokens, lengths)

    def similarities(self, source: int, items: list) -> tuple[list[float], list[BadInput]]:
        """How alike to the source's questions the documents of the items are, and what could not be used."""
        found, bad = [], []
        for item in self._texts(source, items):
            if type(item) is Piece:
                found.append(self._similarity(source)(item.text))
            elif type(item) is BadInput:
                bad.append(item)
        return found, bad

    def _encode_texts(self, texts: list[str], tokens: list, lengths: list) -> None:
        """Append the tokens and the sentences' lengths of each text."""
        sentences_of = [split_sentences(text) for text in texts]
        ids, sizes = self._encoder.encode([sentence for sentences in sentences_of for sentence in sentences])
        at = start = 0
        for sentences in sentences_of:
            lengths.append(sizes[at : at + len(sentences)])
            at += len(sentences)
            end = start + int(lengths[-1].sum())
            tokens.append(ids[start:end])
            start = end

    def _assemble(self, items: list, tokens: list, lengths: list) -> EncodedChunk:
        encoded, number = [], 0
        for item in items:
            if type(item) is Piece:
                digest = digest_of(item.text)
                keys = duplicate_keys(self.duplicates, tokens[number], digest) if self.duplicates else None
                item = EncodedPiece(item.starts_document, len(lengths[number]), len(item.text), digest, keys)
                number += 1
            encoded.append(item)
        nothing = [np.empty(0, np.int32)]
        return EncodedChunk(np.concatenate(tokens or nothing), np.concatenate(lengths or nothing), encoded)

    def _pieces(self, source: int, items: list) -> Iterator[Piece | Lacking | BadInput | LeftOut]:
        threshold = self.thresholds.get(source)
        for item in self._texts(source, items):
            if threshold is None or type(item) is not Piece or self._similarity(source)(item.text) >= threshold:
                yield item
            else:
                yield LeftOut("below the similarity")

    def _texts(self, source: int, items: list) -> Iterator[Piece | Lacking | BadInput | LeftOut]:
        for item in items:
            if type(item) is Record:
                yield from extract_pieces(self.sources[source], item, self.piece_chars[source])
            else:
                yield item

    def _similarity(self, source: int) -> Similarity:
        path = self.sources[source].options.queries_file
        if path not in self._similarities:
            self._similarities[path] = Similarity(read_questions(path))
        return self._similarities[path]


class WorkerPool:
    """num_workers processes, or with 1 the calling one; a context manager."""

    def __init__(self, work: TextWork, num_workers: int):
        self._work, self._num_workers = work, num_workers
        self._pool = None
        if num_workers > 1:
            # spawn: the calling process may have threads, and a fork of them can hang.
            self._pool = ProcessPoolExecutor(
                num_workers, get_context("spawn"), initializer=_start_worker, initargs=(work, os.getpid())
            )

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, kind, *_exception) -> None:
        if self._pool is not None:
            _end_pool(self._pool, at_once=kind is not None)

    def map(self, method: Callable, chunks: Iterable[Chunk]) -> Iterator[tuple[Chunk, object]]:
        """Each chunk with what a method of TextWork makes of it, in order."""
        if self._pool is None:
            for chunk in chunks:
                yield chunk, method(self._work, chunk.source, chunk.items)
            return
        under_way, num_chars = deque(), 0
        try:
            for chunk in chunks:
                under_way.append((chunk, self._pool.submit(_work_on, method, chunk.source, chunk.items)))
                num_chars += chunk.num_chars
                while len(under_way) > 2 * self._num_workers or num_chars > _MAX_CHARS_UNDER_WAY:
                    oldest, future = under_way.popleft()
                    num_chars -= oldest.num_chars
                    yield oldest, future.result()
            while under_way:
                oldest, future = under_way.popleft()
                yield oldest, future.result()
        except BrokenProcessPool:
            raise DataError(
                "a process that prepares text was killed (out of memory?); run the command again, with fewer workers"
            ) from None


class _Worker:
    """What one worker process keeps between chunks."""

    work: TextWork


@contextlib.contextmanager
def leave_pool(pool: ProcessPoolExecutor) -> Iterator[ProcessPoolExecutor]:
    """The pool; after an error or a signal its processes are ended at once, whatever they do."""
    at_once = True
    try:
        yield pool
        at_once = False
    finally:
        _end_pool(pool, at_once)


def _end_pool(pool: ProcessPoolExecutor, at_once: bool) -> None:
    if at_once:
        for process in active_children():
            process.kill()
    pool.shutdown(wait=True, cancel_futures=True)


def guard_worker(parent: int) -> None:
    """In a worker process: it leaves signals to the main process, and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the main process ends the workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()


def _start_worker(work: TextWork, parent: int) -> None:
    guard_worker(parent)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread a process
    _Worker.work = work


def _end_with_parent(parent: int) -> None:
    # A worker whose main process was killed would wait for work for ever.
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _work_on(method: Callable, source: int, items: list):
    return method(_Worker.work, source, items)
