"""Foreign indexed data as a corpus: what the packings and the batches ask of IndexedCorpus, answered from the files of others."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from robustbert.data.errors import DataError
from robustbert.data.foreign.fit import Fit, find_fit
from robustbert.data.foreign.frames import Frames, KeptTokens
from robustbert.data.foreign.identity import identity_of
from robustbert.data.foreign.layouts import ForeignIndex
from robustbert.data.foreign.saved_datasets import SavedDatasetIndex
from robustbert.data.foreign.side_files import (
    Facts,
    Progress,
    build_index,
    read_facts,
    read_side_arrays,
    side_prefix,
    write_side_files,
)
from robustbert.data.tokenizer import Tokenizer

_COUNTED_TOKENS = 1 << 26  # of larger data, the ids of so many tokens spread over them are checked and counted
_PART_TOKENS = 1 << 21


class ForeignCorpus:
    """Indexed data of Megatron-LM, fairseq or `datasets`, by memory map. Where a document is one sequence, has_sentences is False.

    tokens, sentence_ends and the rest: see IndexedCorpus; in the tokenizer's ids, without the special tokens around sequences.
    document_indices: int64, the number of the first sequence of each document, and at the end num_sequences; sequences without
    tokens (fairseq's blank lines) count as sentences here and hold nothing. side_prefix: where files about it may be put.
    """

    def __init__(self, index: ForeignIndex, facts: Facts, arrays: list[np.ndarray], at: Path):
        self.prefix, self.index, self.facts, self.side_prefix = index.prefix, index, facts, at
        coarse, bounds, table, self._counts = arrays
        self.document_indices = bounds if len(bounds) else index.document_bounds
        self.frames = Frames(**facts.frames)
        self.tokens = index.items()
        if self.frames.per_run or len(table):
            table = table if len(table) else None
            self.tokens = KeptTokens(self.tokens, index, self.frames, self.document_indices, coarse, facts.num_tokens, table)
        self.num_tokens, self.num_documents = facts.num_tokens, facts.num_documents
        self.has_sentences = facts.num_sentences > facts.num_documents

    def __len__(self) -> int:
        return self.index.num_sequences

    @property
    def fingerprint(self) -> int:
        """See IndexedCorpus."""
        return self.facts.fingerprint

    @property
    def document_ends(self) -> np.ndarray:
        """See IndexedCorpus."""
        return np.append(self._kept(self.document_indices[1:-1]), self.num_tokens)

    def document_lengths(self, start: int, stop: int) -> np.ndarray:
        """See IndexedCorpus."""
        return np.diff(self._kept(self.document_indices[start : stop + 1]))

    def sentence_ends(self, start: int, stop: int) -> np.ndarray:
        """See IndexedCorpus."""
        ends = self.index.starts(start, stop) + self.index.lengths(start, stop)
        numbers = np.arange(start + 1, start + 1 + len(ends))
        if self.frames.ends_documents:
            return ends - (np.searchsorted(self.document_indices, numbers, side="right") - 1)
        return ends - self.frames.per_run * numbers

    def sentence(self, index: int) -> np.ndarray:
        """The ids of one sequence."""
        end = int(self.sentence_ends(index, index + 1)[0])
        start = int(self.sentence_ends(index - 1, index)[0]) if index else 0
        return np.asarray(self.tokens[start:end])

    def token_counts(self) -> np.ndarray:
        """How often each id occurs: int64 (vocab_size,); of very large data scaled up from those that were counted."""
        if self.facts.num_counted == self.num_tokens:
            return self._counts.copy()
        return np.rint(self._counts * (self.num_tokens / max(1, self.facts.num_counted))).astype(np.int64)

    def _kept(self, sequences: np.ndarray) -> np.ndarray:
        """The tokens before each of these sequences, which begin documents (num_sequences: all)."""
        starts = self.index.starts_in_order(sequences)
        if self.frames.ends_documents:
            return starts - np.searchsorted(self.document_indices, sequences)
        return starts - self.frames.per_run * sequences


def open_index(prefix: str | Path) -> ForeignIndex | SavedDatasetIndex:
    """The index of a prefix, or of the folder of a saved data set. DataError: it is damaged, or neither."""
    return SavedDatasetIndex(prefix) if Path(prefix).is_dir() else ForeignIndex(prefix)


def check_foreign(prefix: str | Path, tokenizer: Tokenizer, tokenizer_name: str) -> None:
    """Open the index and look at a sample of the ids: well under a second. DataError: it is damaged, or does not fit."""
    find_fit(open_index(prefix), tokenizer, tokenizer_name)


def prepare_foreign(
    prefix: str | Path, folder: str | Path, tokenizer: Tokenizer, tokenizer_name: str, progress: Progress | None = None
) -> None:
    """Make the side files of foreign data in `folder`, unless they are there.

    DataError: see check_foreign; the data changed since; ids that are not the tokenizer's.
    """
    index = open_index(prefix)
    at, identity = side_prefix(prefix, folder, tokenizer), identity_of(prefix)
    facts = read_facts(at, identity)
    if facts is not None and read_side_arrays(at, facts) is not None:
        return
    fit = find_fit(index, tokenizer, tokenizer_name)
    coarse, bounds, num_tokens, num_sentences, num_documents = build_index(index, fit.frames, progress)
    counts, num_counted = count_ids(index, fit, bounds, tokenizer, progress)
    facts = Facts(
        path=str(prefix),
        identity=identity,
        tokenizer_sha256=tokenizer.sha256,
        numbering=fit.numbering.name,
        num_tokens=num_tokens,
        num_sentences=num_sentences,
        num_documents=num_documents,
        num_counted=num_counted,
        frames=vars(fit.frames),
    )
    table = np.empty(0, np.int64) if fit.numbering.is_identity else fit.numbering.table
    write_side_files(at, facts, [coarse, bounds, table, counts])


def open_foreign(prefix: str | Path, folder: str | Path, tokenizer: Tokenizer) -> ForeignCorpus:
    """Open foreign data whose side files prepare_foreign made. DataError: they are missing; the data changed since."""
    index, at = open_index(prefix), side_prefix(prefix, folder, tokenizer)
    facts = read_facts(at, identity_of(prefix))
    arrays = read_side_arrays(at, facts) if facts is not None else None
    if arrays is None:
        raise DataError(f"{prefix}: its index {at}.json is missing; it is made when a run is prepared")
    return ForeignCorpus(index, facts, arrays, at)


def count_ids(
    index: ForeignIndex,
    fit: Fit,
    bounds: np.ndarray,
    tokenizer: Tokenizer,
    progress: Progress | None = None,
    most_tokens: int | None = None,
) -> tuple[np.ndarray, int]:
    """How often each id occurs (int64), and in how many tokens: all, or above most_tokens (2^26), parts spread over the data.

    DataError, with the sequence: an id that the tokenizer has not, a special one inside, other frames than the sample had.
    """
    counts, total = np.zeros(tokenizer.vocab_size, np.int64), 0
    items, document_bounds = index.items(), bounds if len(bounds) else index.document_bounds
    parts = list(_parts(index, most_tokens or _COUNTED_TOKENS))
    for number, (start, stop) in enumerate(parts, 1):
        ids = _checked_ids(index, fit, items, document_bounds, tokenizer, start, stop)
        counts += np.bincount(ids, minlength=len(counts))
        total += len(ids)
        if progress is not None:
            progress(f"ids of {index.prefix.name}", number, len(parts))
    return counts, total


def _parts(index: ForeignIndex, most_tokens: int) -> Iterator[tuple[int, int]]:
    """Ranges of sequences of about _PART_TOKENS each: all of them, or as many as hold most_tokens, spread evenly."""
    mean = max(1, index.num_tokens // index.num_sequences)
    size = max(1, _PART_TOKENS // mean)
    starts = np.arange(0, index.num_sequences, size)
    if index.num_tokens > most_tokens:
        starts = starts[np.unique(np.linspace(0, len(starts) - 1, max(1, most_tokens // (size * mean))).astype(np.int64))]
    for start in starts.tolist():
        yield start, min(start + size, index.num_sequences)


def _checked_ids(
    index: ForeignIndex,
    fit: Fit,
    items: np.ndarray,
    document_bounds: np.ndarray,
    tokenizer: Tokenizer,
    start: int,
    stop: int,
) -> np.ndarray:
    """The tokenizer's ids (int64) of the sequences start .. stop - 1, without their frames."""
    frames, lengths = fit.frames, index.lengths(start, stop)
    ends = np.cumsum(lengths)
    first = int(index.starts(start, start + 1)[0])
    stored = items[first : first + int(ends[-1])]
    keeps = np.ones(len(stored), bool)
    tails = ends - 1 if frames.tail else np.empty(0, np.int64)
    if frames.ends_documents:
        numbers = np.arange(start + 1, stop + 1)
        here = document_bounds[np.minimum(np.searchsorted(document_bounds, numbers), len(document_bounds) - 1)] == numbers
        tails = ends[here] - 1
    heads = ends - lengths if frames.head else np.empty(0, np.int64)
    for places, expected in ((heads, frames.head_id), (tails, frames.tail_id)):
        stray = np.flatnonzero(stored[places] != expected)
        if len(stray):
            number = start + int(np.searchsorted(ends, places[stray[0]], side="right"))
            raise DataError(
                f"{index.prefix}: {frames.in_words()}, but sequence {number} has {stored[places[stray[0]]]} there; "
                "the data are of two makes, part them"
            )
        keeps[places] = False
    kept = stored[keeps]
    ids = fit.numbering.ids(kept)
    wrong = np.flatnonzero((ids < 0) | (tokenizer.is_special(ids) & (ids != tokenizer.unk_id)))
    if len(wrong):
        place = int(np.flatnonzero(keeps)[wrong[0]])
        number, item = start + int(np.searchsorted(ends, place, side="right")), int(kept[wrong[0]])
        what = f"the special token {tokenizer.decode([ids[wrong[0]]])}" if ids[wrong[0]] >= 0 else "none of the tokenizer's"
        raise DataError(
            f"{index.prefix}: sequence {number} holds the id {item}, read as {fit.numbering.name} {what}; set data.tokenizer to the "
            "one that made the data, or make them again without special tokens inside"
        )
    return ids
