"""Which files transformers makes a tokenizer of."""

from pathlib import Path

_KINDS = (
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
    ("sentencepiece.bpe.model",),
    ("spiece.model",),
    ("tokenizer.model",),
)


def transformers_has_tokenizer(folder: Path) -> bool:
    """Whether transformers finds a tokenizer in a model's folder.

    transformers 5 does not say if there is none: its AutoTokenizer then has the five special tokens as its whole vocabulary
    (seen with 5.24.0; 4.57.1 raises an error). GPT-2's encoder.json and vocab.bpe are no files of its.
    """
    return any(all((folder / name).is_file() for name in names) for names in _KINDS)
