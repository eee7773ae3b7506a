"""FULL-SENTENCES and DOC-SENTENCES: which sentences make up block i (RoBERTa, section 4.2), and blocks as one array.

A block is <s>, whole sentences one after another, </s>, at most sequence_length tokens. In FULL-SENTENCES it crosses
documents, with one more </s> between them; in DOC-SENTENCES it ends where its document ends. Bounds are token offsets.
Legend: N blocks asked for at once, S sequence.
"""

import numpy as np

from robustbert.data.blocks.rows import NUM_FRAME_TOKENS, BlockSizes, Rows
from robustbert.data.corpus import IndexedCorpus
from robustbert.data.tokenizer.base import Tokenizer

_WINDOW = 1 << 20  # sentences looked at together: bounds the builder's memory
_WHOLE_DOCUMENT_PIECES = range(16, 7, -1)  # tokens; a document without sentences may be cut at each multiple of one of these


class PackedCorpus:
    """The blocks of one corpus, each a run of its tokens.

    arrays: bounds and separators.
    bounds: int64 (number of blocks + 1,), block i holds the corpus' tokens bounds[i] .. bounds[i + 1] - 1.
    separators: int64, ascending, the token offsets before which a further </s> stands, except at a block's edge: where
    documents end, or none.
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
        self._bounds, self._separators = arrays
        self._bos_id, self._eos_id, self._pad_id = tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def block(self, index: int) -> np.ndarray:
        """One block's tokens, <s> and </s> included, without padding: int64."""
        tokens_NS, lengths_N = self.blocks(np.array([index]))
        return tokens_NS[0, : lengths_N[0]]

    def lengths(self, blocks_N: np.ndarray, epochs_N: np.ndarray, key: int) -> np.ndarray:
        """See Packing; the epoch and the key do not count."""
        starts_N, ends_N = self._bounds[blocks_N], self._bounds[np.add(blocks_N, 1)]
        first_N = np.searchsorted(self._separators, starts_N, side="right")
        last_N = np.searchsorted(self._separators, ends_N, side="left")
        return ends_N - starts_N + np.maximum(last_N - first_N, 0) + NUM_FRAME_TOKENS

    def rows(self, blocks_N: np.ndarray, epochs_N: np.ndarray, key: int, width: int) -> Rows:
        """See Packing; the epoch and the key do not count."""
        return Rows(*self.blocks(blocks_N, width))

    def blocks(self, indices_N: np.ndarray, width: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Several blocks: tokens_NS (int64, padded on the right to `width`, or sequence_length) and lengths_N (int64)."""
        tokens_NS = np.empty((len(indices_N), width or self.sequence_length), np.int64)
        lengths_N = np.empty(len(indices_N), np.int64)
        tokens_NS[:, 0] = self._bos_id
        starts_N, ends_N = self._bounds[indices_N], self._bounds[np.add(indices_N, 1)]
        first_N = np.searchsorted(self._separators, starts_N, side="right")
        last_N = np.searchsorted(self._separators, ends_N, side="left")
        bounds = zip(starts_N.tolist(), ends_N.tolist(), first_N.tolist(), last_N.tolist())
        corpus_tokens, pad_id, eos_id = self.corpus.tokens, self._pad_id, self._eos_id
        for row, (start, end, first, last) in enumerate(bounds):
            tokens_S, at = tokens_NS[row], 1
            for cut in self._separators[first:last].tolist() if first < last else ():
                tokens_S[at : at + cut - start] = corpus_tokens[start:cut]
                at += cut - start
                tokens_S[at] = eos_id
                at, start = at + 1, cut
            stop = at + end - start
            tokens_S[at:stop] = corpus_tokens[start:end]
            tokens_S[stop] = eos_id
            tokens_S[stop + 1 :] = pad_id
            lengths_N[row] = stop + 1
        return tokens_NS, lengths_N


def pack_full_sentences(corpus: IndexedCorpus, sequence_length: int) -> np.ndarray:
    """The bounds of all blocks, greedily: each block takes as many whole sentences as fit (RoBERTa, section 4.2).

    A sentence longer than a block's sequence_length - 2 places starts a block of its own and is split over as many as
    it needs; its rest shares a block with the sentences after it. No token is lost.
    Where the corpus holds whole documents in place of sentences, they are cut at every 8th to 16th token as sentences
    are at their ends: uncut, a document that does not fit what is left of a block would leave that empty.
    A separator stands between documents inside a block, not at its edges, where <s> and </s> stand.
    Returns int64 (number of blocks + 1,), from 0 to the number of tokens. Reads a window of sentences at a time.
    """
    return _pack(corpus, sequence_length, nonempty_document_ends(corpus), _next_cut_across)


def pack_doc_sentences(corpus: IndexedCorpus, sequence_length: int) -> np.ndarray:
    """The bounds of all blocks as of pack_full_sentences, but each block also ends where its document ends."""
    return _pack(corpus, sequence_length, nonempty_document_ends(corpus), _next_cut_within)


def nonempty_document_ends(corpus: IndexedCorpus) -> np.ndarray:
    """The token offset at which each document ends that holds a token: int64, strictly ascending, from above 0."""
    ends = corpus.document_ends
    return ends[np.diff(ends, prepend=0) > 0]


def _pack(corpus: IndexedCorpus, sequence_length: int, document_ends: np.ndarray, next_cut_of) -> np.ndarray:
    capacity = sequence_length - NUM_FRAME_TOKENS
    parts, offset = [np.zeros(1, np.int64)], 0
    most, window = capacity, _WINDOW
    if not corpus.has_sentences:
        most = min(capacity, min(_WHOLE_DOCUMENT_PIECES, key=lambda size: capacity % size))  # a long one fills its blocks
        window = max(1, _WINDOW * len(corpus) // max(len(corpus), corpus.num_tokens // most))
    at = 0  # the first sentence that ends above offset
    while at < len(corpus):
        sentence_ends = corpus.sentence_ends(at, at + window)
        is_last = at + len(sentence_ends) == len(corpus)
        cuts = split_long(np.concatenate([[offset], sentence_ends]), most)
        if len(cuts) == 1:  # sentences without tokens only
            at += len(sentence_ends)
            continue
        bounds = _follow(cuts, next_cut_of(cuts, document_ends, capacity).tolist(), is_last)
        parts.append(bounds)
        offset = int(bounds[-1])
        at += int(np.searchsorted(sentence_ends, offset, side="right"))
    return np.concatenate(parts)


def _next_cut_across(cuts: np.ndarray, document_ends: np.ndarray, capacity: int) -> np.ndarray:
    """For a block that starts at each cut, the number of the cut at which it ends; documents are crossed."""
    # From cut k to cut j a block holds cuts[j] - cuts[k] tokens and the separators of the documents that end strictly
    # between: so with before[j] documents ending below cut j and until[k] at or below cut k, j fits when
    # cuts[j] + before[j] <= capacity + cuts[k] + until[k].
    before = np.searchsorted(document_ends, cuts, side="left")
    until = np.searchsorted(document_ends, cuts, side="right")
    return np.searchsorted(cuts + before, cuts + until + capacity, side="right") - 1


def _next_cut_within(cuts: np.ndarray, document_ends: np.ndarray, capacity: int) -> np.ndarray:
    """For a block that starts at each cut, the number of the cut at which it ends, in the same document."""
    document = np.minimum(np.searchsorted(document_ends, cuts, side="right"), len(document_ends) - 1)
    return np.searchsorted(cuts, np.minimum(cuts + capacity, document_ends[document]), side="right") - 1


def _follow(cuts: np.ndarray, next_cut: list[int], is_last: bool) -> np.ndarray:
    """The ends of the blocks from the first cut on, as far as these cuts tell; at least one unless nothing is left."""
    chosen, at, end = [], 0, len(cuts) - 1
    while at < end:
        at = next_cut[at]
        chosen.append(at)
    if not is_last and len(chosen) > 1:
        chosen.pop()  # it ended with the window; the next window may have more for it
    return cuts[chosen]


def split_long(cuts: np.ndarray, capacity: int) -> np.ndarray:
    """The cuts, and more inside each sentence longer than `capacity`; sentences without tokens vanish."""
    lengths = np.diff(cuts)
    num_more = np.maximum(lengths - 1, 0) // capacity
    sentence = np.repeat(np.arange(len(lengths)), num_more)
    number = np.arange(len(sentence)) - np.repeat(np.cumsum(num_more) - num_more, num_more) + 1
    places = np.flatnonzero(lengths) + 1  # of the cuts that stay, the first one aside
    cuts = np.concatenate([cuts[:1], cuts[places], cuts[sentence] + number * capacity])
    return np.sort(cuts, kind="stable") if len(sentence) else cuts


def full_sentences_size(corpus: IndexedCorpus, sequence_length: int) -> tuple[int, int]:
    """The number of blocks that FULL-SENTENCES would have, and of the tokens in them, specials included."""
    sizes = build_full_sentences(corpus, sequence_length, NUM_FRAME_TOKENS)[0]
    return int(sizes[0]), int(sizes[1])


def build_full_sentences(corpus: IndexedCorpus, sequence_length: int, num_specials: int) -> list[np.ndarray]:
    """What is stored of FULL-SENTENCES: the sizes, bounds, and separators."""
    bounds, document_ends = pack_full_sentences(corpus, sequence_length), nonempty_document_ends(corpus)
    num_blocks = len(bounds) - 1
    num_separators = len(document_ends) - np.isin(document_ends, bounds, assume_unique=True).sum()
    num_tokens = corpus.num_tokens + num_specials * num_blocks + num_separators
    return [BlockSizes(num_blocks, num_tokens, num_blocks, num_tokens).to_array(), bounds, document_ends]


def build_doc_sentences(corpus: IndexedCorpus, sequence_length: int, num_specials: int) -> list[np.ndarray]:
    """What is stored of DOC-SENTENCES: the sizes, bounds, and no separators."""
    bounds = pack_doc_sentences(corpus, sequence_length)
    num_blocks = len(bounds) - 1
    num_tokens = corpus.num_tokens + num_specials * num_blocks
    sizes = BlockSizes(num_blocks, num_tokens, *full_sentences_size(corpus, sequence_length))
    return [sizes.to_array(), bounds, np.empty(0, np.int64)]
