"""Cuts documents into pairs of neighbouring segments, for SEGMENT-PAIR and SENTENCE-PAIR (RoBERTa, section 4.2).

A pair is (start, cut, stop): token offsets of one document; its segments are start .. cut - 1 and cut .. stop - 1.
Everything works on whole arrays of documents. Legend: D documents, P pairs, L levels.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from robustbert.data.blocks.sentence_blocks import nonempty_document_ends, split_long
from robustbert.data.corpus import IndexedCorpus
from robustbert.data.hashing import below, hash_of

_WINDOW = 1 << 20  # sentences looked at together, whole documents of them: bounds the memory
# Where the first segment ends, as a share of both: one of these for each pair. BERT cuts at a random sentence.
_FIRST_SHARES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
_MIN_SEGMENT_ROOM = 96  # tokens; with less room many a sentence would be cut, so then the halves are equal
_LEVEL_STREAM = 0x1EAF


class Pairs(NamedTuple):
    """Three int64 arrays of token offsets, and the level (int64) of each pair: which share of _FIRST_SHARES it has."""

    start_P: np.ndarray
    cut_P: np.ndarray
    stop_P: np.ndarray
    level_P: np.ndarray


def first_rooms(capacity: int) -> np.ndarray:
    """The room (tokens) of the first segment at each level, ascending; the second one has the rest of `capacity`."""
    rooms = [int(share * capacity) for share in _FIRST_SHARES if min(share, 1 - share) * capacity >= _MIN_SEGMENT_ROOM]
    return np.array(rooms or [capacity // 2], np.int64)


def cut_segment_pairs(corpus: IndexedCorpus, capacity: int, rooms_L: np.ndarray) -> Pairs:
    """Pairs of runs of whole sentences, which together are all of the corpus' tokens, in the order of the corpus.

    The first segment of a pair takes as many sentences as fit rooms_L[level], the second one as many as fit the rest
    of `capacity`; the level is a hash of the document and the pair. So of two pairs of one level, the first segment of
    one and the second segment of the other fit a block. A document's last pair, if shorter, is cut at about the same
    share. A sentence is cut only where it is longer than the segment that it begins, or alone in what is left
    of its document. A token that would be alone in what is left is left out.
    """
    return _joined(
        _segment_pairs(cuts, starts_D, ends_D, numbers_D, capacity, rooms_L)
        for cuts, starts_D, ends_D, numbers_D in _windows(corpus)
    )


def cut_sentence_pairs(corpus: IndexedCorpus, capacity: int) -> Pairs:
    """Pairs of sentences, of every document the first and the second, the third and the fourth, and so on.

    A last one without a companion makes a pair with the one before it, which then is in two pairs; a document of one
    sentence has none. A sentence longer than half of `capacity` counts as several.
    """
    return _joined(_sentence_pairs(split_long(cuts, capacity // 2), starts_D) for cuts, starts_D, _, _ in _windows(corpus))


def _windows(corpus: IndexedCorpus) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Of some whole documents at a time: the sentences' bounds (ascending), and the documents' starts, ends and numbers."""
    ends_D = nonempty_document_ends(corpus)
    starts_D = np.append(0, ends_D[:-1])
    at = done = 0
    indices = corpus.document_indices
    while at < len(indices) - 1:
        upto = max(at + 1, int(np.searchsorted(indices, indices[at] + _WINDOW, side="right")) - 1)
        sentence_ends = corpus.sentence_ends(int(indices[at]), int(indices[upto]))
        at = upto
        stop = int(np.searchsorted(ends_D, sentence_ends[-1], side="right")) if len(sentence_ends) else done
        if stop > done:
            cuts = np.unique(np.append(starts_D[done], sentence_ends))
            yield cuts, starts_D[done:stop], ends_D[done:stop], np.arange(done, stop)
            done = stop


def _segment_pairs(
    cuts: np.ndarray, at_D: np.ndarray, end_D: np.ndarray, number_D: np.ndarray, capacity: int, rooms_L: np.ndarray
) -> Pairs:
    """One pair of every document at a time, until all are used up."""
    found = []
    while True:
        enough = end_D - at_D >= 2
        if not enough.any():
            break
        at_D, end_D, number_D = at_D[enough], end_D[enough], number_D[enough]
        level_D = below(hash_of(_LEVEL_STREAM, number_D, len(found)), len(rooms_L)).astype(np.int64)
        room_D = rooms_L[level_D]
        target_D = at_D + np.maximum(np.minimum(end_D - at_D, capacity) * room_D // capacity, 1)
        number_of_cut_D = np.searchsorted(cuts, target_D, side="right") - 1
        cut_D, following_D = cuts[number_of_cut_D], cuts[number_of_cut_D + 1]
        # A first sentence beyond the target stays whole where it fits and is not the last one.
        longer_D = np.where((following_D <= at_D + room_D) & (following_D < end_D), following_D, target_D)
        cut_D = np.where(cut_D > at_D, cut_D, longer_D)

        limit_D = np.minimum(cut_D + capacity - room_D, end_D)
        stop_D = cuts[np.searchsorted(cuts, limit_D, side="right") - 1]
        stop_D = np.where(stop_D > cut_D, stop_D, limit_D)
        # Where one sentence would be left, the one before it is left too, so that neither has to be cut.
        number_of_stop_D = np.searchsorted(cuts, stop_D, side="right") - 1
        before_D = cuts[np.maximum(number_of_stop_D - 1, 0)]
        is_one_left_D = (stop_D < end_D) & (cuts[np.minimum(number_of_stop_D + 1, len(cuts) - 1)] == end_D)
        stop_D = np.where(is_one_left_D & (before_D > cut_D), before_D, stop_D)

        found.append(Pairs(at_D, cut_D, stop_D, level_D))
        at_D = stop_D
    pairs = _joined(found)
    order = np.argsort(pairs.start_P, kind="stable")
    return Pairs(*(array[order] for array in pairs))


def _sentence_pairs(cuts: np.ndarray, starts_D: np.ndarray) -> Pairs:
    first_D = np.searchsorted(cuts, starts_D)  # the number of each document's first sentence
    num_D = np.diff(np.append(first_D, len(cuts) - 1))
    place = np.arange(len(cuts) - 1) - np.repeat(first_D, num_D)  # of each sentence in its document
    num_left = np.repeat(num_D, num_D) - place  # sentences from it on
    begins_pair = (num_left >= 2) & (place % 2 == 0) | (num_left == 2)
    number_P = np.flatnonzero(begins_pair)
    return Pairs(cuts[number_P], cuts[number_P + 1], cuts[number_P + 2], np.zeros_like(number_P))


def _joined(parts) -> Pairs:
    parts = list(parts)
    if not parts:
        return Pairs(*(np.empty(0, np.int64) for _ in Pairs._fields))
    return Pairs(*(np.concatenate(arrays) for arrays in zip(*parts)))
