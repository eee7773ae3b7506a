"""Tokens that a library puts around its sequences, left out when they are read: one vector of what is left.

Our corpora hold no special tokens; the blocks bring their own. fairseq ends every line with </s>, Hugging Face's tokenizers
frame a text in <s> and </s>, Megatron-LM's --append-eod ends a document. A run is what lies between two such places: a
sequence, or with ends_documents a document. Run i starts at item P(i) of the file and, as c items are left out of each,
at token P(i) - c i of the vector.
"""

from dataclasses import dataclass

import numpy as np

from robustbert.data.blocks.rows import copy_spans
from robustbert.data.foreign.layouts import ForeignIndex

STRIDE = 512  # runs from one entry of the coarse table to the next


@dataclass(frozen=True)
class Frames:
    """head, tail: items left out at both ends of every sequence; ends_documents: one at the end of each document instead.

    head_id, tail_id: the items left out, as they are stored; tail_id also of the documents.
    """

    head: int = 0
    tail: int = 0
    ends_documents: bool = False
    head_id: int = -1
    tail_id: int = -1

    def __post_init__(self):
        assert not (self.ends_documents and (self.head or self.tail))

    @property
    def per_run(self) -> int:
        """Items left out of each run."""
        return self.head + self.tail + self.ends_documents

    def in_words(self) -> str:
        """For people."""
        if self.ends_documents:
            return f"every document ends with the id {self.tail_id}"
        ids = [str(id_) for count, id_ in ((self.head, self.head_id), (self.tail, self.tail_id)) if count]
        if not ids:
            return ""
        verb = "begins and ends" if self.head and self.tail else "begins" if self.head else "ends"
        return f"every sequence {verb} with the id {' and '.join(ids)}"


class KeptTokens:
    """The ids of a .bin without its frames, in the tokenizer's numbers: a vector that is sliced like an array.

    coarse: int64, the token at which every STRIDE-th run starts. document_bounds: see ForeignCorpus. table: the tokenizer's id
    of each stored one, -1 where it has none; None where they are the same.
    """

    def __init__(
        self,
        items: np.ndarray,
        index: ForeignIndex,
        frames: Frames,
        document_bounds: np.ndarray,
        coarse: np.ndarray,
        num_tokens: int,
        table: np.ndarray | None,
    ):
        self._items, self._index, self._frames, self._table = items, index, frames, table
        self._bounds, self._coarse, self._num_tokens = document_bounds, coarse, num_tokens

    def __len__(self) -> int:
        return self._num_tokens

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, step = part.indices(self._num_tokens)
        assert step == 1, step
        if start >= stop:
            return np.empty(0, self._items.dtype if self._table is None else self._table.dtype)
        items = self._items[start:stop] if self._frames.per_run == 0 else self._between(start, stop)
        return items if self._table is None else self._table[items]

    def copy_spans(self, target: np.ndarray, from_K: np.ndarray, to_K: np.ndarray, lengths_K: np.ndarray) -> None:
        """See blocks/rows.py: of many short spans at once, some 10 times as fast as slice by slice."""
        has_tokens = lengths_K > 0
        from_K, to_K, lengths_K = from_K[has_tokens], to_K[has_tokens], lengths_K[has_tokens]
        if self._frames.per_run:
            from_K, to_K, lengths_K = self._pieces(from_K, to_K, lengths_K)
        if self._table is None:
            copy_spans(self._items, target, from_K, to_K, lengths_K)
            return
        ends_K = np.cumsum(lengths_K)
        stored = np.empty(int(ends_K[-1]) if len(ends_K) else 0, self._items.dtype)
        copy_spans(self._items, stored, from_K, ends_K - lengths_K, lengths_K)
        target[np.arange(len(stored)) + np.repeat(to_K - (ends_K - lengths_K), lengths_K)] = self._table[stored]

    def _pieces(self, from_K: np.ndarray, to_K: np.ndarray, lengths_K: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The spans cut at the ends of runs: the item at which each piece starts, its place, its length. P pieces."""
        first_K, last_K = self._runs_of(from_K), self._runs_of(from_K + lengths_K - 1)
        num_K = last_K - first_K + 1
        span_P = np.repeat(np.arange(len(from_K)), num_K)
        run_P = np.arange(len(span_P)) + np.repeat(first_K - (np.cumsum(num_K) - num_K), num_K)
        start_P = np.maximum(self._starts_at(run_P), from_K[span_P])
        stop_P = np.minimum(self._starts_at(run_P + 1), (from_K + lengths_K)[span_P])
        items_P = start_P + self._frames.per_run * run_P + self._frames.head
        return items_P, to_K[span_P] + start_P - from_K[span_P], stop_P - start_P

    def _runs_of(self, tokens_K: np.ndarray) -> np.ndarray:
        """See _run_of; by halving the STRIDE runs that come into question for each token."""
        low_K = (np.searchsorted(self._coarse, tokens_K, side="right") - 1) * STRIDE
        num_runs = (len(self._bounds) - 1) if self._frames.ends_documents else self._index.num_sequences
        high_K = np.minimum(low_K + STRIDE, num_runs)  # the run is at low or above, and below high
        for _ in range(STRIDE.bit_length()):
            middle_K = (low_K + high_K) // 2
            is_above_K = (middle_K > low_K) & (self._starts_at(middle_K) <= tokens_K)
            is_below_K = (middle_K > low_K) & ~is_above_K
            low_K, high_K = np.where(is_above_K, middle_K, low_K), np.where(is_below_K, middle_K, high_K)
        return low_K

    def _starts_at(self, runs: np.ndarray) -> np.ndarray:
        """The token at which each of these runs starts; one more than there are stands for the end."""
        starts = self._index.starts_at(self._bounds[runs] if self._frames.ends_documents else runs)
        return starts - self._frames.per_run * runs

    def _between(self, start: int, stop: int) -> np.ndarray:
        """The items of the tokens start .. stop - 1."""
        c, head = self._frames.per_run, self._frames.head
        first, last = self._run_of(start), self._run_of(stop - 1)
        items = self._items[start + c * first + head : stop + c * last + head]
        if first == last:
            return items
        # Between two runs lie the tail of the one before and the head of the one after: c items.
        starts = run_starts(self._index, self._bounds, self._frames, first + 1, last + 1) - (c - head) - (start + c * first + head)
        keeps = np.ones(len(items), bool)
        keeps[(starts[:, None] + np.arange(c)).ravel()] = False
        return items[keeps]

    def _run_of(self, token: int) -> int:
        """The number of the run that holds a token: the last one that starts at or below it."""
        coarse = int(np.searchsorted(self._coarse, token, side="right")) - 1
        first = coarse * STRIDE
        starts = kept_starts(self._index, self._bounds, self._frames, first, first + STRIDE)
        return first + int(np.searchsorted(starts, token, side="right")) - 1


def run_starts(index: ForeignIndex, document_bounds: np.ndarray, frames: Frames, start: int, stop: int) -> np.ndarray:
    """The item of the file at which the runs start .. stop - 1 start, heads included: int64."""
    if frames.ends_documents:
        return index.starts_at(document_bounds[:-1][start:stop])
    return index.starts(start, stop)


def kept_starts(index: ForeignIndex, document_bounds: np.ndarray, frames: Frames, start: int, stop: int) -> np.ndarray:
    """The token of the vector at which the runs start .. stop - 1 start: int64, ascending."""
    starts = run_starts(index, document_bounds, frames, start, stop)
    return starts - frames.per_run * np.arange(start, start + len(starts))
