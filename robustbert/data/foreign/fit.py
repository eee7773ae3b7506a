"""Whether stored ids are those of a tokenizer, in which numbering, and which of them frame the sequences: from a sample.

The proof is the way back: a sequence that the tokenizer made is what it makes of the sequence's own text. Ids of another
tokenizer, or in another numbering, decode to a text that it cuts otherwise.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from robustbert.data.errors import DataError
from robustbert.data.foreign.frames import Frames
from robustbert.data.foreign.layouts import FAIRSEQ, FAIRSEQ_CACHED, ForeignIndex
from robustbert.data.foreign.numbering import Numbering, possible_numberings
from robustbert.data.tokenizer import Tokenizer

_NUM_SAMPLED = 256  # sequences spread over the data, and as many last ones of documents
_MOST_IDS = 384  # of a longer sequence the first ones
_UNSURE_IDS = 24  # at the place where a sequence was cut: its last word may come back otherwise
# Of the sampled sequences so many must come back. Seen with vocabularies of 1,000 to 50,257 ids: all of the right tokenizer's;
# of another one's, or in another numbering, 0 to 52%, as short sequences come back by chance.
_LEAST_SHARE = 0.9
_LEAST_IDS = 8  # shorter sequences count only where there are few longer ones
_ENOUGH = 16
_END_OF_TEXT = "<|endoftext|>"  # GPT-2's; Megatron-LM's --append-eod puts it at the end of a document


@dataclass(frozen=True)
class Sequence:
    """A sampled sequence: its first stored ids, the last one, its number, and whether it is whole and ends a document."""

    number: int
    items: np.ndarray
    last: int
    is_whole: bool
    ends_document: bool


@dataclass(frozen=True)
class Fit:
    """How stored ids become the tokenizer's; num_back of the num_tried sampled sequences came back from their text."""

    numbering: Numbering
    frames: Frames
    num_tried: int
    num_back: int

    @property
    def share(self) -> float:
        """Of the sequences that came back; 1 where none was long enough to tell."""
        return self.num_back / self.num_tried if self.num_tried else 1.0


def find_fit(index: ForeignIndex, tokenizer: Tokenizer, tokenizer_name: str) -> Fit:
    """Find the numbering and the frames. DataError: the ids are not the tokenizer's, with what was seen."""
    sample = list(sample_sequences(index))
    refusals = []
    for numbering in possible_numberings(index, tokenizer):
        try:
            fit = _try(index, sample, numbering, tokenizer)
        except DataError as error:
            refusals.append(str(error))
            continue
        if fit.share >= _LEAST_SHARE:
            return fit
        back = f"{fit.num_back} of {fit.num_tried} sampled sequences are what it makes of their text"
        refusals.append(f"read as {numbering.name}, {back}")
    raise DataError(
        f"{index.prefix}: its ids are not those of the tokenizer {tokenizer_name} ({'; '.join(refusals)}); "
        "set data.tokenizer to the one that made them"
    )


def sample_sequences(index: ForeignIndex) -> Iterator[Sequence]:
    """Sequences spread over the data, with tokens."""
    numbers = np.unique(np.linspace(0, index.num_sequences - 1, _NUM_SAMPLED).astype(np.int64))
    last_ones = np.empty(0, np.int64)
    if index.document_bounds is not None:
        bounds = index.document_bounds
        chosen = np.unique(np.linspace(1, len(bounds) - 1, min(_NUM_SAMPLED, len(bounds) - 1)).astype(np.int64))
        last_ones = np.unique(bounds[chosen]) - 1
        last_ones = last_ones[last_ones >= 0]
        in_document = np.searchsorted(bounds, numbers + 1)
        last_ones = np.union1d(last_ones, numbers[bounds[np.minimum(in_document, len(bounds) - 1)] == numbers + 1])
    items = index.items()
    for number in np.union1d(numbers, last_ones).tolist():
        start, length = int(index.starts(number, number + 1)[0]), int(index.lengths(number, number + 1)[0])
        if start < 0 or length < 0 or start + length > len(items):
            raise DataError(f"{index.path}: sequence {number} lies at {start} with {length} items of {len(items)}; it is damaged")
        if length:
            first = np.array(items[start : start + min(length, _MOST_IDS)])
            ends = bool(np.isin(number, last_ones))
            yield Sequence(number, first, int(items[start + length - 1]), length <= _MOST_IDS, ends)


def _try(index: ForeignIndex, sample: list[Sequence], numbering: Numbering, tokenizer: Tokenizer) -> Fit:
    frames = _frames(index, sample, numbering, tokenizer)
    tried, back = [], []
    inside = np.array([id_ for id_ in tokenizer.special_ids if id_ != tokenizer.unk_id])
    for sequence in sample:
        num_last = (frames.tail or (frames.ends_documents and sequence.ends_document)) if sequence.is_whole else 0
        items = sequence.items[frames.head : len(sequence.items) - num_last]
        ids = numbering.ids(items)
        if (ids < 0).any():
            stray = int(items[ids < 0][0])
            raise DataError(f"read as {numbering.name}, sequence {sequence.number} holds the id {stray}, which it does not have")
        if np.isin(ids, inside).any():
            stray = int(ids[np.isin(ids, inside)][0])
            raise DataError(f"read as {numbering.name}, sequence {sequence.number} holds {tokenizer.decode([stray])} inside")
        expected = ids.tolist()
        if len(expected) < 2 or tokenizer.unk_id in expected:
            continue
        again = tokenizer.encode(tokenizer.decode(expected))
        if not sequence.is_whole:
            expected, again = expected[:-_UNSURE_IDS], again[: len(expected) - _UNSURE_IDS]
        tried.append(len(expected))
        back.append(again == expected)
    is_long = np.array(tried) >= _LEAST_IDS
    counts = is_long if np.count_nonzero(is_long) >= _ENOUGH else np.ones(len(tried), bool)
    return Fit(numbering, frames, int(np.count_nonzero(counts)), int(np.count_nonzero(np.array(back, bool) & counts)))


def _frames(index: ForeignIndex, sample: list[Sequence], numbering: Numbering, tokenizer: Tokenizer) -> Frames:
    """What every sampled sequence, or document, begins and ends with, as far as it is a special token."""
    if not sample:
        return Frames()
    firsts = np.array([sequence.items[0] for sequence in sample])
    lasts = np.array([sequence.last for sequence in sample])
    ends = numbering.ids(lasts) == tokenizer.eos_id
    if index.kind in (FAIRSEQ, FAIRSEQ_CACHED):
        if not ends.all():
            stray = sample[int(np.flatnonzero(~ends)[0])].number
            raise DataError(f"read as {numbering.name}, line {stray} does not end with </s>, as every line of fairseq's does")
        return Frames(tail=1, tail_id=int(lasts[0]))
    head = bool((numbering.ids(firsts) == tokenizer.bos_id).all())
    if head or ends.all():
        tail = bool(ends.all())
        return Frames(int(head), int(tail), False, int(firsts[0]) if head else -1, int(lasts[0]) if tail else -1)
    at_ends = np.array([sequence.last for sequence in sample if sequence.ends_document])
    if len(at_ends) and (at_ends == at_ends[0]).all() and _ends_text(int(at_ends[0]), numbering, tokenizer):
        return Frames(ends_documents=True, tail_id=int(at_ends[0]))
    return Frames()


def _ends_text(item: int, numbering: Numbering, tokenizer: Tokenizer) -> bool:
    """Whether an id can be no part of a text: a special one, GPT-2's end of text, or none of the tokenizer's."""
    id_ = int(numbering.ids(np.array([item]))[0])
    return id_ < 0 or id_ in tokenizer.special_ids or id_ == tokenizer.token_ids().get(_END_OF_TEXT)
