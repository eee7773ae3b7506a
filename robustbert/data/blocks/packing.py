"""The packings, by the name of their format (`data.format`; RoBERTa, section 4.2), stored beside their corpus.

full-sentences and doc-sentences are in sentence_blocks.py, segment-pair and sentence-pair in pairs.py.
"""

import glob

import numpy as np

from robustbert.config.sections import FORMATS_WITH_PAIRS
from robustbert.data.blocks.block_index import read_block_index, write_block_index
from robustbert.data.blocks.pairs import PairedCorpus, build_segment_pairs, build_sentence_pairs
from robustbert.data.blocks.rows import NUM_FRAME_TOKENS, BlockSizes, Packing
from robustbert.data.blocks.sentence_blocks import PackedCorpus, build_doc_sentences, build_full_sentences
from robustbert.data.corpus import IndexedCorpus, corpus_file
from robustbert.data.errors import DataError
from robustbert.data.tokenizer.base import Tokenizer

# Each takes a corpus, sequence_length and the number of specials in a block, and returns the arrays that are stored.
_BUILDERS = {
    "full-sentences": build_full_sentences,
    "doc-sentences": build_doc_sentences,
    "segment-pair": build_segment_pairs,
    "sentence-pair": build_sentence_pairs,
}
FORMATS = tuple(_BUILDERS)


def open_packing(
    corpus: IndexedCorpus, packing_format: str, sequence_length: int, tokenizer: Tokenizer, stores: bool = True
) -> Packing:
    """Open the blocks of a corpus; where they are absent or of another content, build them and put them beside it.

    Several processes may do so at once: each writes a file of its own and renames it. Where the folder is not writable
    the blocks stay in memory, as without `stores`. DataError: a sequence_length without room for a token, an unknown
    format, a corpus that holds no pairs.
    """
    if packing_format not in _BUILDERS:
        raise DataError(f"data.format {packing_format!r} is not known; use {', '.join(_BUILDERS)}")
    has_pairs, num_specials = packing_format in FORMATS_WITH_PAIRS, _num_specials(packing_format, tokenizer)
    if sequence_length < num_specials + 1 + has_pairs:
        raise DataError(f"a sequence_length of {sequence_length} has no room beside <s> and </s>; use at least 8")
    if packing_format == "sentence-pair" and not corpus.has_sentences:
        raise DataError(
            f"{corpus.prefix}: holds whole documents, one sequence each, and sentence-pair needs their sentences; take full-sentences, "
            "doc-sentences or segment-pair, or index the text by sentences (tools/preprocess, Megatron-LM's --split-sentences)"
        )
    path = corpus_file(corpus.side_prefix, f"{packing_format}-{sequence_length}.npy")
    stored = read_block_index(path, corpus.fingerprint)
    if stored is None:
        stored = _BUILDERS[packing_format](corpus, sequence_length, num_specials)
        if stores:
            write_block_index(path, corpus.fingerprint, stored)
    sizes, *arrays = stored
    packed, is_full = PairedCorpus if has_pairs else PackedCorpus, packing_format == "full-sentences"
    return packed(corpus, arrays, BlockSizes(*sizes.tolist()), sequence_length, tokenizer, has_fixed_width=is_full)


def stored_blocks(corpus: IndexedCorpus) -> list[tuple[str, int]]:
    """The (format, sequence length) of every file of blocks beside a corpus."""
    found = []
    for packing_format in _BUILDERS:
        for path in sorted(corpus.side_prefix.parent.glob(f"{glob.escape(corpus.side_prefix.name)}.{packing_format}-*.npy")):
            length = path.name.removesuffix(".npy").rpartition("-")[2]
            if length.isdigit():
                found.append((packing_format, int(length)))
    return found


def verify_blocks(corpus: IndexedCorpus, packing_format: str, sequence_length: int, tokenizer: Tokenizer) -> None:
    """Build the blocks once more and compare them with the stored ones; DataError where they differ."""
    path = corpus_file(corpus.side_prefix, f"{packing_format}-{sequence_length}.npy")
    stored = read_block_index(path, corpus.fingerprint)
    built = _BUILDERS[packing_format](corpus, sequence_length, _num_specials(packing_format, tokenizer))
    if stored is None or len(stored) != len(built) or not all(map(np.array_equal, stored, built)):
        raise DataError(f"{path}: not the blocks of this corpus; delete it, the next run builds it anew")


def _num_specials(packing_format: str, tokenizer: Tokenizer) -> int:
    return NUM_FRAME_TOKENS + (len(tokenizer.pair_separator) if packing_format in FORMATS_WITH_PAIRS else 0)
