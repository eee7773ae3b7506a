"""Reading a tokenizer from its folder, and training one: a byte-level BPE or a WordPiece (RoBERTa, section 4.4)."""

from collections.abc import Iterator
from pathlib import Path

from robustbert.data.errors import DataError
from robustbert.data.tokenizer.base import FORMATS, Tokenizer
from robustbert.data.tokenizer.byte_bpe import load_byte_bpe, train_byte_bpe
from robustbert.data.tokenizer.hugging_face import read_form
from robustbert.data.tokenizer.wordpiece import load_wordpiece, train_wordpiece

__all__ = ["Tokenizer", "has_tokenizer", "load_tokenizer", "train_tokenizer"]

# The file that tells a kind, and how it is read; the first one that is there counts.
_READERS = {
    "vocab.json": load_byte_bpe,
    "encoder.json": load_byte_bpe,
    "vocab.txt": load_wordpiece,
    "tokenizer.json": lambda folder: _load_form(folder),
}
# Files of tokenizers that are not supported, and whose they are
_OTHERS = {
    "sentencepiece.bpe.model": "SentencePiece (XLM-R, CamemBERT)",
    "spm.model": "SentencePiece (DeBERTa-v2)",
    "spiece.model": "SentencePiece (ALBERT, T5)",
    "tokenizer.model": "SentencePiece or tiktoken",
    "bpe_encoder.bin": "DeBERTa's pickled BPE",
    "bpe.codes": "fastBPE",
    "vocab.bpe": "GPT-2's merges without encoder.json",
    "merges.txt": "merges without vocab.json",
}


def has_tokenizer(folder: str | Path) -> bool:
    """Whether the folder looks like a tokenizer's."""
    return any((Path(folder) / name).is_file() for name in _READERS)


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Read a tokenizer's folder: vocab.json and merges.txt, encoder.json and vocab.bpe, perhaps with dict.txt, or vocab.txt,
    or tokenizer.json alone.

    Settings that change ids (added tokens, add_prefix_space, normalizers, ...) are read from tokenizer.json where it is
    there, from tokenizer_config.json and its like otherwise: ids are those of the library that saved the folder.

    vocab.json holds RoBERTa's ids. encoder.json holds GPT-2's: fairseq's dict.txt reorders them (its line i is RoBERTa's
    id i + 4); without dict.txt an id is GPT-2's plus 4. In both cases <mask> comes last. vocab.txt is BERT's: line i is id
    i - 1; whether case is folded says do_lower_case of tokenizer_config.json (by default it is).
    DataError: a file is missing or unreadable, the specials are missing or elsewhere, ids with gaps, a merge of
    unknown tokens, a setting that is not supported, files that contradict each other.
    """
    folder = Path(folder)
    for name, read in _READERS.items():
        if (folder / name).is_file():
            return read(folder)
    if other := next((name for name in _OTHERS if (folder / name).is_file()), None):
        raise DataError(f"{folder / other}: {_OTHERS[other]} is not supported; {FORMATS}")
    raise DataError(f"{folder}: {'no tokenizer in it' if folder.is_dir() else 'no such folder'}; {FORMATS}")


def _load_form(folder: Path) -> Tokenizer:
    return (load_byte_bpe if read_form(folder).kind == "BPE" else load_wordpiece)(folder)


def train_tokenizer(
    texts: Iterator[str], vocab_size: int, kind: str = "byte-bpe", lowercase: bool | None = None
) -> Tokenizer:
    """Train a tokenizer of vocab_size ids, the five specials among them; the arguments are those of data.tokenizer.train.

    Deterministic for the same texts in the same order. The texts are read once; memory holds their distinct words.
    DataError where the texts hold too little for vocab_size.
    """
    if kind == "wordpiece":
        return train_wordpiece(texts, vocab_size, lowercase=lowercase is not False)
    return train_byte_bpe(texts, vocab_size)
