"""Token sequences and pairs of them in a tokenizer's own form, for tasks that cut their texts themselves.

RoBERTa's is <s> first </s></s> second </s>, BERT's [CLS] first [SEP] second [SEP] with the segment of each token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robustbert.finetune.task import Encoded


@dataclass(frozen=True)
class PairFrame:
    """The special tokens before, between and behind the two parts.

    between_types: the segments of those between; None where the model reads no segments.
    """

    before: tuple[int, ...]
    between: tuple[int, ...]
    behind: tuple[int, ...]
    between_types: tuple[int, ...] | None = None

    @property
    def num_specials(self) -> int:
        """Tokens of the frame alone."""
        return len(self.before) + len(self.between) + len(self.behind)

    def encode(self, first: Sequence[int], second: Sequence[int]) -> Encoded:
        """The pair as the model reads it."""
        ids = np.concatenate([self.before, first, self.between, second, self.behind]).astype(np.int32)
        if self.between_types is None:
            return Encoded(ids)
        first_types = np.zeros(len(self.before) + len(first))
        second_types = np.ones(len(second) + len(self.behind))
        return Encoded(ids, np.concatenate([first_types, self.between_types, second_types]).astype(np.int32))

    def encode_one(self, ids: Sequence[int]) -> Encoded:
        """A single sequence as the model reads it; its first token is at position len(before)."""
        ids = np.concatenate([self.before, ids, self.behind]).astype(np.int32)
        return Encoded(ids, None if self.between_types is None else np.zeros(len(ids), np.int32))


def pair_frame(tokenizer) -> PairFrame:
    """The frame of a fast tokenizer of transformers, read off a pair that it encodes."""
    example = tokenizer("a", "b")
    ids, parts = example["input_ids"], example.sequence_ids(0)
    first, second = parts.index(0), parts.index(1)
    end_of_first, end_of_second = len(parts) - parts[::-1].index(0), len(parts) - parts[::-1].index(1)
    types = example.get("token_type_ids")
    between = None if types is None else tuple(types[end_of_first:second])
    return PairFrame(tuple(ids[:first]), tuple(ids[end_of_first:second]), tuple(ids[end_of_second:]), between)


def plain_ids(tokenizer, texts: list[str]) -> list[list[int]]:
    """The ids of texts without special tokens; the name of one inside a text is text."""
    if not texts:
        return []
    return tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def ids_and_offsets(tokenizer, text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ids of a text as plain_ids gives them, and the characters where each token starts and ends in it."""
    encoding = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    starts, ends = np.array(encoding["offset_mapping"], np.int64).reshape(-1, 2).T.copy()
    return np.array(encoding["input_ids"], np.int32), starts, ends
