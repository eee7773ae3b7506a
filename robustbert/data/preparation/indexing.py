"""Turns raw text into indexed corpora with several processes; the bytes do not depend on how many, nor on interruptions.

The main process reads, decides (duplicates, held-out text) and writes; workers extract text and encode. Every few seconds
what is written is brought to the disk and noted in PREFIX.journal, from which the same command goes on.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np

from robustbert.data.corpus import IndexedCorpus, Manifest, corpus_file, has_manifest, read_manifest, refuse_files_of_others
from robustbert.data.errors import DataError
from robustbert.data.preparation.corpus_writer import CorpusWriter, WriterState, discard_partials, publish
from robustbert.data.preparation.duplicates import SeenDocuments
from robustbert.data.preparation.hold_out import HoldOut, hold_out, piece_chars, with_is_last
from robustbert.data.preparation.journal import Journal
from robustbert.data.preparation.not_taken import NotTaken
from robustbert.data.preparation.text_workers import Chunk, EncodedChunk, EncodedPiece, TextWork, WorkerPool
from robustbert.data.text.corpora.stories import SimilarityCounts
from robustbert.data.text.readers import Position, TextSource, read_pieces, read_records
from robustbert.data.text.records import Piece
from robustbert.data.tokenizer import Tokenizer, load_tokenizer

# What a progress callback gets: what is being done, bytes read so far, bytes in all (an estimate for python:stdlib).
Progress = Callable[[str, int, int], None]

_CHUNK_CHARS = 1 << 19
# A worker takes about a second to start: below this much text a further one does not pay.
_MIN_BYTES_PER_WORKER = 1 << 22
_JOURNAL_INTERVAL_S = 5.0


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
    on_bad_input: str = "stop",
    deduplicate: str | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> list[Manifest]:
    """Write the corpus at `prefix`, and with valid_fraction above 0 the held-out one at `held_out_prefix`.

    tokenizer_dir: where `tokenizer` lies (it is saved there if it does not); the manifest names it. num_workers: processes,
    the calling one not counted; 1 works in the calling process. on_bad_input: stop (DataError at the first) or skip (report
    gets a line about each, and about a file that is a single document). deduplicate: None, exact or near.
    Goes on from what an interrupted call with the same sources, tokenizer and options left, whatever its number of workers
    and its on_bad_input. Returns the manifests of what was written. DataError: bad input; a corpus that exists, or an
    interrupted one of something else (unless `overwrite`).
    """
    assert (held_out_prefix is None) == (valid_fraction == 0)
    assert on_bad_input in ("stop", "skip"), on_bad_input
    prefixes = [Path(prefix)] if held_out_prefix is None else [Path(prefix), Path(held_out_prefix)]
    if not sources:
        raise DataError(f"{prefix}: this part holds no file; take fewer parts than there are files or documents")
    identities = [corpus_source(sources, valid_fraction, bool(i), deduplicate) for i in range(len(prefixes))]
    what = {"tokenizer_sha256": tokenizer.sha256, "corpora": [[str(path), source] for path, source in zip(prefixes, identities)]}
    if not overwrite:
        refuse_existing(*prefixes)
    for path in prefixes:
        refuse_files_of_others(path)
    is_saved = _is_saved(tokenizer, Path(tokenizer_dir), has_manifest(prefix) or corpus_file(prefix, "journal").exists())
    with Journal(corpus_file(prefix, "journal"), what, overwrite) as journal:
        if not is_saved:
            tokenizer.save(tokenizer_dir)
        if journal.state is None or not journal.state.get("complete"):
            work = TextWork(sources, [piece_chars(source, valid_fraction) for source in sources], tokenizer, deduplicate)
            with _Preparation(work, prefixes, tokenizer_dir, valid_fraction, overwrite, journal, on_bad_input, report) as run:
                run.prepare(num_workers, _Counter(Path(prefix).name, sources, progress))
                run.complete(identities)
        for path in prefixes:
            publish(path)
        _clear_away(prefixes, journal)
    return [read_manifest(path) for path in prefixes]


def refuse_existing(*prefixes: str | Path) -> None:
    """DataError where a corpus lies at a prefix of a preparation, unless that is under way (the first one has a journal).

    Files that nobody knows to be ours are refused always, and by the writer once more.
    """
    for prefix in prefixes:
        refuse_files_of_others(prefix)
    if corpus_file(prefixes[0], "journal").exists():
        return
    for path in (corpus_file(prefix, ending) for prefix in prefixes for ending in ("json", "bin", "idx")):
        if path.exists():
            raise DataError(f"{path}: exists already; pass --overwrite to replace it, or choose another output")


def is_prepared(prefix: str | Path, source: dict, tokenizer: Tokenizer) -> bool:
    """Whether a whole corpus of this source (of corpus_source) and tokenizer lies at the prefix."""
    try:
        manifest = IndexedCorpus(prefix).manifest
    except DataError:
        return False
    return manifest.tokenizer_sha256 == tokenizer.sha256 and manifest.source == source


def corpus_source(
    sources: list[TextSource], valid_fraction: float, held_out: bool, deduplicate: str | None = None
) -> dict:
    """What a manifest says of where its text came from; equal sources and tokenizers give equal corpora."""
    source = {
        "text": [source.text for source in sources],
        "identities": [source.identity() for source in sources],
        "valid_fraction": valid_fraction,
        "held_out": held_out,
    }
    return source | ({"deduplicate": deduplicate} if deduplicate else {})


def marked_pieces(
    sources: list[TextSource], valid_fraction: float, advance: Callable[[int], None] = lambda num_bytes: None
) -> Iterator[tuple[Piece, bool]]:
    """All pieces of the sources, each with whether it is held out (where no duplicates are removed)."""

    def pieces() -> Iterator[Piece]:
        for source in sources:
            yield from read_pieces(source, piece_chars(source, valid_fraction), advance)

    return hold_out(pieces(), valid_fraction)


class _Preparation:
    """The writing half: takes encoded chunks in order, and notes in the journal how far it is."""

    def __init__(
        self,
        work: TextWork,
        prefixes: list[Path],
        tokenizer_dir: str | Path,
        valid_fraction: float,
        overwrite: bool,
        journal: Journal,
        on_bad_input: str,
        report: Callable[[str], None],
    ):
        self._work, self._prefixes, self._journal = work, prefixes, journal
        state = journal.state or {}
        self._state = state or None
        self._written: dict | None = None  # the newest state that the journal does not hold yet
        self._written_at = -_JOURNAL_INTERVAL_S
        self._position = Position(*state.get("position", ()))
        self._hold_out = HoldOut(valid_fraction, state.get("hold_out")) if valid_fraction else None
        self._last_side, self._is_broken = state.get("last_side"), state.get("is_broken", False)
        self._thresholds = {int(number): value for number, value in state.get("thresholds", {}).items()}
        self.not_taken = NotTaken(on_bad_input, report, state.get("not_taken"), state.get("remarks"))
        with ExitStack() as stack:
            states = [WriterState(**writer) for writer in state.get("writers", [{}] * len(prefixes))]
            self._writers = [
                stack.enter_context(CorpusWriter(prefix, work.tokenizer, tokenizer_dir, overwrite or bool(state), writer))
                for prefix, writer in zip(prefixes, states)
            ]
            self._seen = None
            if work.duplicates:
                self._seen = SeenDocuments(corpus_file(prefixes[0], "seen.partial"), state.get("num_seen_keys", 0))
                stack.callback(self._seen.close)
            self._open = stack.pop_all()
        if state:
            self._keep()

    def __enter__(self) -> "_Preparation":
        return self

    def __exit__(self, *_exception) -> None:
        try:
            if self._written is not None:
                self._note()
        finally:
            self._open.close()
            if self._state is None:
                _clear_away(self._prefixes, self._journal)

    def prepare(self, num_workers: int, counter: "_Counter") -> None:
        """Bring all that is left of the sources into the corpora."""
        num_workers = max(1, min(num_workers, counter.total // _MIN_BYTES_PER_WORKER))
        self._find_thresholds(num_workers, counter)
        self._work.thresholds = self._thresholds
        chunks = _chunks(self._work, counter.restarted(self._position), self._position)
        with WorkerPool(self._work, num_workers) as pool:
            for (chunk, encoded), is_last in with_is_last(pool.map(TextWork.encode, chunks)):
                self.not_taken.check(encoded.items)
                self._write(encoded, is_last)
                self._position = chunk.end
                self._written = self._current_state()
                if time.monotonic() - self._written_at >= _JOURNAL_INTERVAL_S:
                    self._note()
        if self._hold_out is not None:
            self._hold_out.check_end()

    def complete(self, identities: list[dict]) -> None:
        """Write all that the corpora need to be whole, and note that only the names are left to be changed."""
        if any(writer.num_sentences == 0 for writer in self._writers):  # the writer refuses that; nothing is left to go on from
            self._state = self._written = None
        for writer, identity in zip(self._writers, identities):
            writer.complete(identity, self.not_taken.for_manifest(), self.not_taken.remarks)
        self._state = {"complete": True}
        self._written = None
        self._keep()
        self._journal.append(self._state)

    def _find_thresholds(self, num_workers: int, counter: "_Counter") -> None:
        """The similarity from which the documents of each filtered source are kept: a first pass where a share is wanted."""
        for number, source in enumerate(self._work.sources):
            options = source.options
            if options.queries_file is None or number in self._thresholds:
                continue
            if options.threshold is not None:
                self._thresholds[number] = options.threshold
                continue
            counts = SimilarityCounts()
            chunks = _chunks(self._work, counter.restarted(Position(number)), Position(number), stop=number + 1)
            with WorkerPool(self._work, num_workers) as pool:
                for _, (similarities, bad_input) in pool.map(TextWork.similarities, chunks):
                    self.not_taken.check(bad_input)
                    counts.add(similarities)
            self._thresholds[number] = counts.threshold(options.share)
            self._written = self._current_state()
            self._note()

    def _write(self, encoded: EncodedChunk, is_last: bool) -> None:
        token_ends = np.concatenate([[0], np.cumsum(encoded.lengths)])
        kept, at = [], 0
        for item in encoded.items:
            if type(item) is not EncodedPiece:
                self.not_taken.add(item)
                continue
            start, at = at, at + item.num_sentences
            duplicate = self._seen.check(item.keys) if self._seen is not None and item.num_sentences else None
            if duplicate is not None:
                self.not_taken.count_duplicate(duplicate, item.num_characters)
                self._is_broken = True
                continue
            # What follows a part of a document that is left out does not follow what is before that part.
            if self._is_broken and not item.starts_document:
                item = item._replace(starts_document=True)
            self._is_broken = False
            kept.append((item, start, at))
        for number, (piece, start, stop) in enumerate(kept, 1):
            side = self._side(piece, is_last and number == len(kept))
            writer = self._writers[side]
            if piece.starts_document or side != self._last_side:
                writer.begin_document()
            self._last_side = side
            tokens = encoded.tokens[token_ends[start] : token_ends[stop]]
            writer.add_sentences(tokens, encoded.lengths[start:stop], piece.num_characters)

    def _side(self, piece: EncodedPiece, is_last: bool) -> int:
        if self._hold_out is None:
            return 0
        return int(self._hold_out.choose(piece.num_characters, piece.digest, is_last))

    def _current_state(self) -> dict:
        return {
            "position": self._position,
            "writers": [asdict(writer.state()) for writer in self._writers],
            "hold_out": self._hold_out.state() if self._hold_out is not None else None,
            "last_side": self._last_side,
            "is_broken": self._is_broken,
            "thresholds": self._thresholds,
            "not_taken": self.not_taken.to_dict(),
            "remarks": self.not_taken.remarks,
            "num_seen_keys": self._seen.num_keys if self._seen is not None else 0,
        }

    def _note(self) -> None:
        """Bring what is written to the disk, then the newest state."""
        for writer in self._writers:
            writer.flush()
        if self._seen is not None:
            self._seen.flush()
        self._journal.append(self._written)
        self._state, self._written, self._written_at = self._written, None, time.monotonic()
        self._keep()

    def _keep(self) -> None:
        for writer in self._writers:
            writer.keep()


class _Counter:
    """Counts the bytes read for a progress callback."""

    def __init__(self, name: str, sources: list[TextSource], progress: Progress | None):
        self._name, self._progress = name, progress
        self.total = sum(source.num_bytes for source in sources)
        self._sizes = [source.num_bytes for source in sources]
        self._done = 0

    def restarted(self, position: Position) -> "_Counter":
        """The counter at the source of a position, for one that reads from there on."""
        self._done = sum(self._sizes[: position.source])
        return self

    def __call__(self, num_bytes: int) -> None:
        self._done += num_bytes
        if self._progress is not None:
            self._progress(self._name, self._done, self.total)


def _is_saved(tokenizer: Tokenizer, folder: Path, is_ours: bool) -> bool:
    """Whether the tokenizer lies in the folder. DataError: something else does that is not known to be ours."""
    try:
        if load_tokenizer(folder).sha256 == tokenizer.sha256:
            return True
    except DataError:
        pass
    if not is_ours and folder.is_dir() and any(folder.iterdir()):
        raise DataError(f"{folder}: holds something else than this tokenizer, and is not replaced; choose another output, or move it away")
    return False


def _clear_away(prefixes: list[Path], journal: Journal) -> None:
    for prefix in prefixes:
        discard_partials(prefix)
    corpus_file(prefixes[0], "seen.partial").unlink(missing_ok=True)
    journal.delete()


def _chunks(work: TextWork, advance: Callable[[int], None], start: Position, stop: int | None = None) -> Iterator[Chunk]:
    """Records in chunks of about _CHUNK_CHARS, each of one source; stop: the number of the source to stop before."""
    items, size, source, end = [], 0, start.source, start
    for position, item in read_records(work.sources[:stop], work.piece_chars, advance, start):
        if position.source != source and items:
            yield Chunk(source, items, size, end)
            items, size = [], 0
        source, end = position.source, position
        items.append(item)
        size += len(item.content) if hasattr(item, "content") else 1
        if size >= _CHUNK_CHARS:
            yield Chunk(source, items, size, end)
            items, size = [], 0
    if items:
        yield Chunk(source, items, size, end)
