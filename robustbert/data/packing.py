"""FULL-SENTENCES: which sentences make up block i (RoBERTa, section 4.2), and a batch's blocks as one array.

A block is <s>, whole sentences one after another, </s>, at most sequence_length tokens. It crosses documents, with one
more </s> between them. Its bounds are token offsets, stored beside the corpus and opened by memory map.
Legend: B batch, S sequence.
"""

import os
import secrets
from pathlib import Path

import numpy as np

from robustbert.data.corpus import IndexedCorpus, corpus_file
from robustbert.data.errors import DataError
from robustbert.data.tokenizer import Tokenizer

_VERSION = 1
_NUM_HEADER_ITEMS = 3  # version, fingerprint of the corpus, number of bounds
_WINDOW = 1 << 20  # sentences looked at together: bounds the builder's memory
NUM_FRAME_TOKENS = 2  # <s> and </s>


class PackedCorpus:
    """The blocks of one corpus.

    bounds: int64 (number of blocks + 1,), block i holds the corpus' tokens bounds[i] .. bounds[i + 1] - 1.
    document_ends: int64 (documents,), the token offsets at which documents end.
    """

    def __init__(
        self,
        corpus: IndexedCorpus,
        bounds: np.ndarray,
        document_ends: np.ndarray,
        sequence_length: int,
        tokenizer: Tokenizer,
    ):
        self.corpus, self.sequence_length = corpus, sequence_length
        self._bounds, self._document_ends = bounds, document_ends
        self._bos_id, self._eos_id, self._pad_id = tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def block(self, index: int) -> np.ndarray:
        """One block's tokens, <s> and </s> included, without padding: int64."""
        tokens_BS, lengths_B = self.blocks(np.array([index]))
        return tokens_BS[0, : lengths_B[0]]

    def blocks(self, indices_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Several blocks: tokens_BS (int64, padded on the right to sequence_length) and lengths_B (int64)."""
        tokens_BS = np.empty((len(indices_B), self.sequence_length), np.int64)
        lengths_B = np.empty(len(indices_B), np.int64)
        tokens_BS[:, 0] = self._bos_id
        starts_B, ends_B = self._bounds[indices_B], self._bounds[np.add(indices_B, 1)]
        first_B = np.searchsorted(self._document_ends, starts_B, side="right")
        last_B = np.searchsorted(self._document_ends, ends_B, side="left")
        bounds = zip(starts_B.tolist(), ends_B.tolist(), first_B.tolist(), last_B.tolist())
        corpus_tokens, pad_id, eos_id = self.corpus.tokens, self._pad_id, self._eos_id
        for row, (start, end, first, last) in enumerate(bounds):
            tokens_S, at = tokens_BS[row], 1
            for cut in self._document_ends[first:last].tolist() if first < last else ():
                tokens_S[at : at + cut - start] = corpus_tokens[start:cut]
                at += cut - start
                tokens_S[at] = eos_id
                at, start = at + 1, cut
            stop = at + end - start
            tokens_S[at:stop] = corpus_tokens[start:end]
            tokens_S[stop] = eos_id
            tokens_S[stop + 1 :] = pad_id
            lengths_B[row] = stop + 1
        return tokens_BS, lengths_B


def pack_full_sentences(corpus: IndexedCorpus, sequence_length: int) -> np.ndarray:
    """The bounds of all blocks, greedily: each block takes as many whole sentences as fit (RoBERTa, section 4.2).

    A sentence longer than a block's sequence_length - 2 places starts a block of its own and is split over as many as
    it needs; its rest shares a block with the sentences after it. No token is lost.
    A separator stands between documents inside a block, not at its edges, where <s> and </s> stand.
    Returns int64 (number of blocks + 1,), from 0 to the number of tokens. Reads a window of sentences at a time.
    """
    capacity = sequence_length - NUM_FRAME_TOKENS
    document_ends = corpus.document_ends
    parts, offset = [np.zeros(1, np.int64)], 0
    at = 0  # the first sentence that ends above offset
    while at < len(corpus):
        sentence_ends = corpus.sentence_ends(at, at + _WINDOW)
        is_last = at + len(sentence_ends) == len(corpus)
        bounds = _pack_window(offset, sentence_ends, document_ends, capacity, is_last)
        parts.append(bounds)
        offset = int(bounds[-1])
        at += int(np.searchsorted(sentence_ends, offset, side="right"))
    return np.concatenate(parts)


def _pack_window(offset: int, sentence_ends: np.ndarray, document_ends: np.ndarray, capacity: int, is_last: bool) -> np.ndarray:
    """The ends of the blocks from `offset` on, as far as these sentences tell; at least one unless nothing is left."""
    cuts = _split_long(np.concatenate([[offset], sentence_ends]), capacity)
    # From cut k to cut j a block holds cuts[j] - cuts[k] tokens and the separators of the documents that end strictly
    # between: so with before[j] documents ending below cut j and until[k] at or below cut k, j fits when
    # cuts[j] + before[j] <= capacity + cuts[k] + until[k].
    before = np.searchsorted(document_ends, cuts, side="left")
    until = np.searchsorted(document_ends, cuts, side="right")
    next_cut = (np.searchsorted(cuts + before, cuts + until + capacity, side="right") - 1).tolist()
    chosen, at, end = [], 0, len(cuts) - 1
    while at < end:
        at = next_cut[at]
        chosen.append(at)
    if not is_last and len(chosen) > 1:
        chosen.pop()  # it ended with the window; the next window may have more for it
    return cuts[chosen]


def _split_long(cuts: np.ndarray, capacity: int) -> np.ndarray:
    """The cuts, and more inside each sentence longer than `capacity`; sentences without tokens vanish."""
    lengths = np.diff(cuts)
    num_more = np.maximum(lengths - 1, 0) // capacity
    sentence = np.repeat(np.arange(len(lengths)), num_more)
    number = np.arange(len(sentence)) - np.repeat(np.cumsum(num_more) - num_more, num_more) + 1
    places = np.flatnonzero(lengths) + 1  # of the cuts that stay, the first one aside
    cuts = np.concatenate([cuts[:1], cuts[places], cuts[sentence] + number * capacity])
    return np.sort(cuts, kind="stable") if len(sentence) else cuts


def open_packing(corpus: IndexedCorpus, packing_format: str, sequence_length: int, tokenizer: Tokenizer) -> PackedCorpus:
    """Open the blocks of a corpus; where they are absent or of another content, build them and put them beside it.

    Several processes may do so at once: each writes a file of its own and renames it. Where the folder is not writable
    the blocks stay in memory. DataError: a sequence_length without room for a token, or an unknown format.
    """
    if packing_format != "full-sentences":
        raise DataError(f"data.format {packing_format!r} is not known; use full-sentences")
    if sequence_length <= NUM_FRAME_TOKENS:
        raise DataError(f"a sequence_length of {sequence_length} has no room beside <s> and </s>; use at least 8")
    path = corpus_file(corpus.prefix, f"{packing_format}-{sequence_length}.npy")
    stored = _read_packing(path, corpus)
    if stored is None:
        stored = pack_full_sentences(corpus, sequence_length), corpus.document_ends
        _write_packing(path, corpus, *stored)
    return PackedCorpus(corpus, *stored, sequence_length, tokenizer)


def _read_packing(path: Path, corpus: IndexedCorpus) -> tuple[np.ndarray, np.ndarray] | None:
    """bounds and document_ends as PREFIX.FORMAT-LENGTH.npy has them; None where it is absent or of another corpus."""
    try:
        content = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if content.dtype != np.int64 or content.ndim != 1 or len(content) < _NUM_HEADER_ITEMS:
        return None
    version, fingerprint, num_bounds = content[:_NUM_HEADER_ITEMS].tolist()
    expected_size = _NUM_HEADER_ITEMS + num_bounds + corpus.num_documents
    if version != _VERSION or fingerprint != corpus.fingerprint or len(content) != expected_size:
        return None
    content = content[_NUM_HEADER_ITEMS:].view(np.ndarray)
    return content[:num_bounds], content[num_bounds:]


def _write_packing(path: Path, corpus: IndexedCorpus, bounds: np.ndarray, document_ends: np.ndarray) -> None:
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(partial, "wb") as file:
            header = np.array([_VERSION, corpus.fingerprint, len(bounds)], np.int64)
            np.save(file, np.concatenate([header, bounds, document_ends]))
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)  # a read-only folder, or a full disk: the blocks stay in memory
