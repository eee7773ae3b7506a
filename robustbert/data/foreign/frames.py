"""Tokens that a library puts around its sequences, left out when they are read: one vector of what is left.

Our corpora hold no special tokens; the blocks bring their own. fairseq ends every line with </s>, Hugging Face's tokenizers
frame a text in <s> and </s>, Megatron-LM's --append-eod ends a document. A run is what lies between two such places: a
sequence, or with ends_documents a document. Run i starts at item P(i) of the file and, as c items are left out of each,
at token P(i) - c i of the vector.
"""

from dataclasses import dataclass

import numpy as np

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
