"""Turns raw text into indexed corpora with several processes; the bytes do not depend on how many.

The main process reads, cuts and writes; workers split sentences and encode. Results are written in the order of the
text, and only so many chunks are under way that memory stays bounded.
"""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from robustbert.data.corpus import Manifest
from robustbert.data.corpus_writer import CorpusWriter
from robustbert.data.encoder import CachingEncoder
from robustbert.data.errors import DataError
from robustbert.data.hold_out import hold_out, piece_chars
from robustbert.data.readers import Piece, TextSource, read_pieces
from robustbert.data.sentences import split_sentences
from robustbert.data.tokenizer import Tokenizer

# What a progress callback gets: what is being done, bytes read so far, bytes in all (an estimate for python:stdlib).
Progress = Callable[[str, int, int], None]

_CHUNK_CHARS = 1 << 19
# A worker takes about a second to start: below this much text a further one does not pay.
_MIN_BYTES_PER_WORKER = 1 << 22

# (ids of all sentences, length of each sentence, number of sentences of each piece)
_Encoded = tuple[np.ndarray, np.ndarray, list[int]]


def prepare_corpus(
    sources: list[TextSource],
    tokenizer: Tokenizer,
    tokenizer_dir: str | Path,
    prefix: str | Path,
    num_workers: int = 1,
    held_out_prefix: str | Path | None = None,
    valid_fraction: float = 0.0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Manifest]:
    """Write the corpus at `prefix`, and with valid_fraction above 0 the held-out one at `held_out_prefix`.

    tokenizer_dir: where `tokenizer` is saved; the manifest names it. num_workers: processes, the calling one not
    counted; 1 works in the calling process.
    Returns the manifests of what was written. DataError: bad input, or output that exists (unless `overwrite`).
    """
    assert (held_out_prefix is None) == (valid_fraction == 0)
    prefixes = [prefix] if held_out_prefix is None else [prefix, held_out_prefix]
    name, total = Path(prefix).name, sum(source.num_bytes for source in sources)
    done = 0

    def advance(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        if progress is not None:
            progress(name, done, total)

    with ExitStack() as stack:
        writers = [stack.enter_context(CorpusWriter(p, tokenizer, tokenizer_dir, overwrite)) for p in prefixes]
        marked = marked_pieces(sources, valid_fraction, advance)
        num_workers = max(1, min(num_workers, total // _MIN_BYTES_PER_WORKER))
        for chunk, (tokens, lengths, sentences_per_piece) in _encode_chunks(_chunks(marked), tokenizer, num_workers):
            token_ends = np.concatenate([[0], np.cumsum(lengths)])
            at = 0
            for (piece, held_out), num_sentences in zip(chunk, sentences_per_piece):
                writer, stop = writers[held_out], at + num_sentences
                if piece.starts_document:
                    writer.begin_document()
                writer.add_sentences(tokens[token_ends[at] : token_ends[stop]], lengths[at:stop], len(piece.text))
                at = stop
        identities = [corpus_source(sources, valid_fraction, bool(i)) for i in range(len(writers))]
        return [writer.finish(identity) for writer, identity in zip(writers, identities)]


def corpus_source(sources: list[TextSource], valid_fraction: float, held_out: bool) -> dict:
    """What a manifest says of where its text came from; equal sources and tokenizers give equal corpora."""
    return {
        "text": [source.text for source in sources],
        "identities": [source.identity() for source in sources],
        "valid_fraction": valid_fraction,
        "held_out": held_out,
    }


def marked_pieces(
    sources: list[TextSource], valid_fraction: float, advance: Callable[[int], None] = lambda num_bytes: None
) -> Iterator[tuple[Piece, bool]]:
    """All pieces of the sources, each with whether it is held out."""

    def pieces() -> Iterator[Piece]:
        for source in sources:
            yield from read_pieces(source, piece_chars(source, valid_fraction), advance)

    return hold_out(pieces(), valid_fraction)


def _chunks(marked: Iterable[tuple[Piece, bool]]) -> Iterator[list[tuple[Piece, bool]]]:
    chunk, size = [], 0
    for piece, held_out in marked:
        chunk.append((piece, held_out))
        size += len(piece.text)
        if size >= _CHUNK_CHARS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _encode_chunks(
    chunks: Iterable[list[tuple[Piece, bool]]], tokenizer: Tokenizer, num_workers: int
) -> Iterator[tuple[list[tuple[Piece, bool]], _Encoded]]:
    """Each chunk with its encoded sentences, in order."""
    if num_workers == 1:
        encoder = CachingEncoder(tokenizer)
        for chunk in chunks:
            yield chunk, _encode_pieces(encoder, [piece.text for piece, _ in chunk])
        return
    # spawn: the calling process may have threads, and a fork of them can hang.
    pool = ProcessPoolExecutor(num_workers, get_context("spawn"), initializer=_start_worker, initargs=(tokenizer, os.getpid()))
    under_way = deque()
    try:
        for chunk in chunks:
            under_way.append((chunk, pool.submit(_encode_in_worker, [piece.text for piece, _ in chunk])))
            if len(under_way) > 2 * num_workers:
                oldest, future = under_way.popleft()
                yield oldest, future.result()
        while under_way:
            oldest, future = under_way.popleft()
            yield oldest, future.result()
    except BrokenProcessPool:
        raise DataError("a process that prepares text was killed (out of memory?); try again with fewer workers") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _encode_pieces(encoder: CachingEncoder, texts: list[str]) -> _Encoded:
    sentences_by_piece = [split_sentences(text) for text in texts]
    tokens, lengths = encoder.encode([sentence for sentences in sentences_by_piece for sentence in sentences])
    return tokens, lengths, [len(sentences) for sentences in sentences_by_piece]


class _Worker:
    """What one worker process keeps between chunks."""

    encoder: CachingEncoder


def _start_worker(tokenizer: Tokenizer, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the main process ends the workers
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread a process
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    _Worker.encoder = CachingEncoder(tokenizer)


def _end_with_parent(parent: int) -> None:
    # A worker whose main process was killed would wait for work for ever.
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _encode_in_worker(texts: list[str]) -> _Encoded:
    return _encode_pieces(_Worker.encoder, texts)
