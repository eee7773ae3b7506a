"""A corpus in memory, for tests that need many."""

from pathlib import Path

import numpy as np


class MemoryCorpus:
    """What a packing reads of IndexedCorpus; documents: lists of the lengths of their sentences. Tokens count up from 4."""

    has_sentences = True

    def __init__(self, documents: list[list[int]], first_token: int = 4):
        self.prefix = self.side_prefix = Path("/nowhere/corpus")
        self.fingerprint = 1
        lengths = [length for document in documents for length in document]
        self._ends = np.cumsum(lengths, dtype=np.int64)
        self.document_indices = np.append(0, np.cumsum([len(document) for document in documents]))
        self.num_tokens = int(self._ends[-1])
        self.tokens = np.arange(first_token, first_token + self.num_tokens)

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def document_ends(self) -> np.ndarray:
        return np.append(0, self._ends)[self.document_indices[1:]]

    def sentence_ends(self, start: int, stop: int) -> np.ndarray:
        return self._ends[start:stop].copy()

    def document_of(self, token: int) -> int:
        """The document that holds a token (as they count up from 4)."""
        return int(np.searchsorted(self.document_ends, token - self.tokens[0], side="right"))
