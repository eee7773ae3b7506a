"""Encodes many texts fast: a tokenizer works word by word, and most words have been seen before.

The tokenizers library spends its time on each occurrence of a word; a dictionary of the words seen answers several
times as fast. The ids are the library's own. A tokenizer with settings (settings.py) encodes each text whole.
"""

import re
from itertools import chain

import numpy as np

from robustbert.data.tokenizer.base import Tokenizer

# Scripts whose characters are letters, numbers or neither in every version of Unicode alike: Latin, and punctuation.
# A text with other characters, control characters or unusual spaces goes to the library whole.
_WELL_KNOWN = re.compile(r"[ -~¡-ɏ‐-‧‰-⁞]*")
_MAX_WORDS = 500_000  # remembered; then it starts anew (bounds the memory to some 100 MB)


class CachingEncoder:
    """Encodes texts with a tokenizer, as `Tokenizer.encode_batch` does, and remembers words."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._ids_of: dict[str, tuple[int, ...]] = {}

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of all texts one after another (int32), and the number of ids of each text (int32)."""
        if len(self._ids_of) > _MAX_WORDS:
            self._ids_of.clear()
        pattern = self._tokenizer.word_pattern
        words_of = [pattern.findall(text) if pattern and _WELL_KNOWN.fullmatch(text) else (text,) for text in texts]
        ids_of = self._ids_of
        unusual = {words[0] for text, words in zip(texts, words_of) if len(words) == 1 and words[0] is text}
        missing = [word for word in dict.fromkeys(chain.from_iterable(words_of)) if word not in ids_of]
        for word, ids in zip(missing, self._tokenizer.encode_batch(missing)):
            ids_of[word] = tuple(ids)
        get = ids_of.__getitem__
        ids_by_text = [list(chain.from_iterable(map(get, words))) for words in words_of]
        for text in unusual:
            ids_of.pop(text, None)  # sentences do not come again
        lengths = np.fromiter(map(len, ids_by_text), np.int32, len(texts))
        return np.fromiter(chain.from_iterable(ids_by_text), np.int32, int(lengths.sum())), lengths
