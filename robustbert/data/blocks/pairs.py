"""SEGMENT-PAIR and SENTENCE-PAIR: two segments and whether the second follows the first (RoBERTa, section 4.2).

Block i has two neighbouring segments of one document. In every epoch one half of the blocks keep both, and the others
exchange their second segments among one another, so that each segment still comes once. Who exchanges with whom is
computed from (key, epoch, block) when it is asked for. Legend: N blocks asked for at once, S sequence, P pairs.
"""

from math import isqrt

import numpy as np

from robustbert.data.blocks.rows import BlockSizes, Rows, copy_spans
from robustbert.data.blocks.segments import Pairs, cut_segment_pairs, cut_sentence_pairs, first_rooms
from robustbert.data.blocks.sentence_blocks import full_sentences_size
from robustbert.data.corpus import IndexedCorpus
from robustbert.data.errors import DataError
from robustbert.data.hashing import below, hash_of
from robustbert.data.tokenizer.base import Tokenizer

_LABEL_STREAM, _SHIFT_STREAM, _OTHER_DOCUMENT_STREAM = 1, 2, 3
_MIN_BLOCKS_PER_LEVEL = 64  # in a smaller corpus all blocks are of one level


class PairedCorpus:
    """The blocks of one corpus, each two segments: <s> A </s> </s> B </s>, or with a WordPiece [CLS] A [SEP] B [SEP].

    arrays, all int64 (lengths_P holds two int32 each):
    starts_P: the token offset of each pair. lengths_P: the tokens of its first and second segment.
    level_starts: pairs are ordered by their level (see segments.py), and by document within; the first pair of each level,
    and the number of all. num_classes: see _exchanged, one for each level; 0 where a document has about half or more.
    document_starts: in that case, the first pair of each document, and the number of all; else empty.
    """

    def __init__(
        self,
        corpus: IndexedCorpus,
        arrays: list[np.ndarray],
        sizes: BlockSizes,
        sequence_length: int,
        tokenizer: Tokenizer,
        has_fixed_width: bool,
    ):
        self.corpus, self.sequence_length, self.has_fixed_width = corpus, sequence_length, has_fixed_width
        self.sizes = sizes
        self._starts_P, lengths_P, self._level_starts, self._num_classes, self._document_starts = arrays
        self._lengths_P2 = lengths_P.view(np.int32).reshape(-1, 2)
        self._separator = np.array(tokenizer.pair_separator)
        self._bos_id, self._eos_id, self._pad_id = tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id

    def __len__(self) -> int:
        return len(self._starts_P)

    def seconds(self, blocks_N: np.ndarray, epochs_N: np.ndarray, key: int) -> np.ndarray:
        """The block whose second segment stands in each block: itself, or one of another document."""
        blocks_N = np.asarray(blocks_N, np.int64)
        level_N = np.searchsorted(self._level_starts, blocks_N, side="right") - 1
        number_N = (blocks_N - self._level_starts[level_N]) >> 1  # of two neighbours, one exchanges
        num_N = np.diff(self._level_starts)[level_N] >> 1
        exchanges_N = number_N < num_N  # the last block of a level may be without a neighbour: it keeps both segments
        exchanges_N &= self._exchanging(level_N, number_N, epochs_N, key) == blocks_N
        seconds_N = blocks_N.copy()
        here = np.flatnonzero(exchanges_N)
        if self._num_classes[0] == 0:
            seconds_N[here] = self._of_another_document(blocks_N[here], epochs_N[here], key)
        else:
            seconds_N[here] = self._exchanged(level_N[here], number_N[here], num_N[here], epochs_N[here], key)
        return seconds_N

    def lengths(self, blocks_N: np.ndarray, epochs_N: np.ndarray, key: int) -> np.ndarray:
        """See Packing."""
        return self._lengths(blocks_N, self.seconds(blocks_N, epochs_N, key))

    def rows(self, blocks_N: np.ndarray, epochs_N: np.ndarray, key: int, width: int) -> Rows:
        """See Packing."""
        seconds_N = self.seconds(blocks_N, epochs_N, key)
        lengths_N = self._lengths(blocks_N, seconds_N)
        first_lengths_N = self._lengths_P2[blocks_N, 0].astype(np.int64)
        first_starts_N = self._starts_P[blocks_N]
        second_starts_N = self._starts_P[seconds_N] + self._lengths_P2[seconds_N, 0]
        tokens_NS = np.full((len(blocks_N), width), self._pad_id, np.int64)
        tokens_NS[:, 0] = self._bos_id
        tokens_NS[np.arange(len(blocks_N)), lengths_N - 1] = self._eos_id
        row_starts_N = np.arange(len(blocks_N)) * width
        separators_N = row_starts_N + 1 + first_lengths_N
        for place, id_ in enumerate(self._separator.tolist()):
            tokens_NS.ravel()[separators_N + place] = id_
        second_places_N = separators_N + len(self._separator)
        second_lengths_N = row_starts_N + lengths_N - 1 - second_places_N
        copy_spans(
            self.corpus.tokens,
            tokens_NS.ravel(),
            np.concatenate([first_starts_N, second_starts_N]),
            np.concatenate([row_starts_N + 1, second_places_N]),
            np.concatenate([first_lengths_N, second_lengths_N]),
        )
        place_S = np.arange(width)
        # The first </s> belongs to the first segment.
        token_types_NS = (place_S > first_lengths_N[:, None] + 1) & (place_S < lengths_N[:, None])
        return Rows(tokens_NS, lengths_N, token_types_NS.astype(np.int64), (seconds_N == blocks_N).astype(np.int64))

    def _lengths(self, blocks_N: np.ndarray, seconds_N: np.ndarray) -> np.ndarray:
        segments_N = self._lengths_P2[blocks_N, 0] + self._lengths_P2[seconds_N, 1]
        return segments_N.astype(np.int64) + len(self._separator) + 2

    def _exchanging(self, level_N: np.ndarray, number_N: np.ndarray, epochs_N: np.ndarray, key: int) -> np.ndarray:
        """Which of the blocks 2 number and 2 number + 1 of a level exchanges its second segment in an epoch."""
        which_N = hash_of(key, _LABEL_STREAM, epochs_N, level_N, number_N) & np.uint64(1)
        return self._level_starts[level_N] + 2 * number_N + which_N.astype(np.int64)

    def _exchanged(
        self, level_N: np.ndarray, number_N: np.ndarray, num_N: np.ndarray, epochs_N: np.ndarray, key: int
    ) -> np.ndarray:
        """The block that gives its second segment to the exchanging block of each number; a bijection of them.

        Numbers are in the order of the documents. Those with the same remainder by num_classes are a class; in each
        epoch a class is rotated by a number of places of its own, never by none. No document reaches over more numbers
        than there are classes, so the segment is one of another document.
        """
        num_classes_N = self._num_classes[level_N]
        place_N, class_N = np.divmod(number_N, num_classes_N)
        size_N = (num_N - class_N + num_classes_N - 1) // num_classes_N
        hashes_N = hash_of(key, _SHIFT_STREAM, epochs_N, level_N, class_N)
        place_N = (place_N + 1 + below(hashes_N, size_N - 1).astype(np.int64)) % size_N
        return self._exchanging(level_N, class_N + num_classes_N * place_N, epochs_N, key)

    def _of_another_document(self, blocks_N: np.ndarray, epochs_N: np.ndarray, key: int) -> np.ndarray:
        """A random block of another document for each block: where one document has so many that no exchange is possible."""
        document_N = np.searchsorted(self._document_starts, blocks_N, side="right") - 1
        start_N, stop_N = self._document_starts[document_N], self._document_starts[document_N + 1]
        hashes_N = hash_of(key, _OTHER_DOCUMENT_STREAM, epochs_N, blocks_N)
        other_N = below(hashes_N, len(self) - (stop_N - start_N)).astype(np.int64)
        return np.where(other_N < start_N, other_N, other_N + stop_N - start_N)


def build_segment_pairs(corpus: IndexedCorpus, sequence_length: int, num_specials: int) -> list[np.ndarray]:
    """What is stored of SEGMENT-PAIR: the sizes, and the arrays of PairedCorpus. DataError: fewer than two documents."""
    capacity = sequence_length - num_specials
    one_room = np.array([capacity // 2])
    rooms_L = first_rooms(capacity)
    if corpus.num_tokens < _MIN_BLOCKS_PER_LEVEL * len(rooms_L) * capacity:
        rooms_L = one_room
    arrays = _arrays(corpus, cut_segment_pairs(corpus, capacity, rooms_L))
    if len(rooms_L) > 1 and arrays is None:
        arrays = _arrays(corpus, cut_segment_pairs(corpus, capacity, one_room))
    return [_sizes(corpus, arrays, sequence_length, num_specials), *arrays]


def build_sentence_pairs(corpus: IndexedCorpus, sequence_length: int, num_specials: int) -> list[np.ndarray]:
    """What is stored of SENTENCE-PAIR: the sizes, and the arrays of PairedCorpus. DataError: fewer than two documents."""
    arrays = _arrays(corpus, cut_sentence_pairs(corpus, sequence_length - num_specials))
    return [_sizes(corpus, arrays, sequence_length, num_specials), *arrays]


def _arrays(corpus: IndexedCorpus, pairs: Pairs) -> list[np.ndarray] | None:
    """The arrays of PairedCorpus; None where a level of several has a document with too many of its pairs.

    DataError: no two documents with a pair.
    """
    num_levels = int(pairs.level_P.max()) + 1 if len(pairs.level_P) else 1
    order = np.argsort(pairs.level_P, kind="stable") if num_levels > 1 else slice(None)
    start_P, cut_P, stop_P, level_P = (array[order] for array in pairs)
    document_P = np.searchsorted(corpus.document_ends, start_P, side="right")
    if len(document_P) == 0 or document_P.min() == document_P.max():
        raise DataError(
            f"{corpus.prefix}: the second segment of a pair comes from another document, and it has "
            f"{len(np.unique(document_P))} with a pair (of two sentences, say); add documents, check how the reader tells them "
            "apart, or take data.format full-sentences or doc-sentences"
        )
    level_starts = np.searchsorted(level_P, np.arange(num_levels + 1))
    num_classes = [_num_classes(document_P[a:b]) for a, b in zip(level_starts[:-1], level_starts[1:])]
    if num_levels > 1 and min(num_classes) == 0:
        return None
    document_starts = np.empty(0, np.int64)
    if min(num_classes) == 0:
        document_starts = np.append(np.flatnonzero(np.diff(document_P, prepend=-1)), len(document_P))
    lengths_P2 = np.stack([cut_P - start_P, stop_P - cut_P], axis=1).astype(np.int32)
    return [start_P, lengths_P2.view(np.int64).ravel(), level_starts, np.array(num_classes), document_starts]


def _num_classes(document_P: np.ndarray) -> int:
    """For PairedCorpus._exchanged: as many as a document reaches over, or as each has members; 0 where that is impossible."""
    num_numbers = len(document_P) // 2
    if num_numbers == 0:
        return 0
    first_P = np.flatnonzero(np.diff(document_P, prepend=-1))
    last_P = np.append(first_P[1:], len(document_P)) - 1
    reach = int((last_P // 2 - first_P // 2).max()) + 1
    num_classes = max(reach, isqrt(num_numbers))
    return num_classes if num_numbers >= 2 * num_classes else 0


def _sizes(corpus: IndexedCorpus, arrays: list[np.ndarray], sequence_length: int, num_specials: int) -> np.ndarray:
    num_blocks, num_tokens = len(arrays[0]), int(arrays[1].view(np.int32).sum(dtype=np.int64))
    sizes = BlockSizes(num_blocks, num_tokens + num_specials * num_blocks, *full_sentences_size(corpus, sequence_length))
    return sizes.to_array()
