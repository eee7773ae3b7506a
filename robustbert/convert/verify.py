"""The gate of every conversion: source and result, given the same text and the same tokens, must give the same logits.

Real text is turned into ids by each side's own tokenizer, which shows a wrong vocabulary; random tokens then go over the
whole vocabulary. B batch, S sequence, V vocabulary.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from robustbert.config import ModelConfig
from robustbert.convert.errors import ConversionError
from robustbert.convert.readers import Batch, Reader
from robustbert.data.text.python_prose import python_prose

TOLERANCE = 1e-4
_NUM_ROWS, _MAX_LENGTH = 4, 128
_NUM_PASSAGES, _PASSAGE_CHARS = 200, 500
_READ_CHARS = 2_000_000


@dataclass(frozen=True)
class Comparison:
    """Largest absolute differences of the logits; the libraries that gave them, the source's first."""

    on_text: float
    on_random_tokens: float
    readers: tuple[str, str]

    @property
    def largest(self) -> float:
        """NaN counts as infinite."""
        differences = (self.on_text, self.on_random_tokens)
        return max(differences) if all(difference == difference for difference in differences) else float("inf")


def compare(
    source: Reader, result: Reader, config: ModelConfig, passages: list[str], progress: Callable[[str], None]
) -> Comparison:
    """Ask both; ConversionError where their tokenizers differ on a passage. The models are in memory one after the other."""
    ids = _same_ids(source.encode(passages), result.encode(passages), passages)
    token_types = config.num_token_types > 1 and source.has_token_types and result.has_token_types
    batches = [text_batch(ids, config, token_types), random_batch(config, token_types)]
    progress(f"checking: logits of the source by {source.name}")
    expected = source.logits(batches)
    progress(f"checking: logits of the result by {result.name}")
    actual = result.logits(batches)
    on_text, on_random = (_difference(*three) for three in zip(expected, actual, batches))
    return Comparison(on_text, on_random, (source.name, result.name))


def read_passages(text: Path | None, special_tokens: tuple[str, ...]) -> list[str]:
    """Passages of a text file, or of the prose inside Python, without those that name a special token.

    Some tokenizers take such a name for the token, others for text. ConversionError for a file without text.
    """
    if text is None:
        documents = python_prose()
    else:
        try:
            with open(text, encoding="utf-8") as file:
                documents = iter([file.read(_READ_CHARS)])
        except (OSError, UnicodeDecodeError) as error:
            raise ConversionError(f"{text}: cannot be read as text in UTF-8 ({error})") from None
    usable = (p for p in _passages(documents) if not any(token in p for token in special_tokens))
    passages = list(islice(usable, _NUM_PASSAGES))
    if not passages:
        raise ConversionError(f"{text}: holds no text to check with")
    return passages


def text_batch(ids: list[list[int]], config: ModelConfig, token_types: bool) -> Batch:
    """The longest passages, cut to the model's length, padded on the right."""
    length = min(config.max_sequence_length, _MAX_LENGTH)
    longest = sorted(ids, key=len, reverse=True)[:_NUM_ROWS]
    rows = [torch.tensor(row[:length]) for row in longest]
    tokens_BS = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=config.pad_id)
    return _batch(tokens_BS, tokens_BS != config.pad_id, token_types)


def random_batch(config: ModelConfig, token_types: bool) -> Batch:
    """The same every time, over the whole vocabulary, one row padded so that positions and attention masks count, too."""
    length = min(config.max_sequence_length, _MAX_LENGTH)
    generator = torch.Generator().manual_seed(0)
    tokens_BS = torch.randint(4, config.vocab_size, (_NUM_ROWS, length), generator=generator)
    tokens_BS[tokens_BS == config.pad_id] = 4 + (config.pad_id == 4)
    tokens_BS[1, length * 2 // 3 :] = config.pad_id
    return _batch(tokens_BS, tokens_BS != config.pad_id, token_types)


def _batch(tokens_BS: torch.Tensor, attended_BS: torch.Tensor, token_types: bool) -> Batch:
    token_types_BS = torch.zeros_like(tokens_BS)
    if token_types:
        token_types_BS[:, tokens_BS.shape[1] // 2 :] = 1
    return Batch(tokens_BS, attended_BS, token_types_BS)


def _same_ids(source: list[list[int]] | None, result: list[list[int]] | None, passages: list[str]) -> list[list[int]]:
    if source is None or result is None:  # one has no tokenizer of its own: there is nothing to compare
        return source or result
    for of_source, of_result, passage in zip(source, result, passages, strict=True):
        if of_source != of_result:
            pairs = zip(of_source, of_result)
            at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(of_source), len(of_result)))
            raise ConversionError(
                f"the tokenizers of source and result differ: {passage[:60]!r} has id {of_source[at : at + 1]} and "
                f"{of_result[at : at + 1]} at position {at}; not converted"
            )
    return source


def _difference(expected, actual, batch: Batch) -> float:
    difference = (expected.tokens_BSV - actual.tokens_BSV)[batch.attended_BS].abs().max()
    if expected.next_sentence_B2 is not None and actual.next_sentence_B2 is not None:
        difference = torch.maximum(difference, (expected.next_sentence_B2 - actual.next_sentence_B2).abs().max())
    return difference.item()


def _passages(documents: Iterator[str]) -> Iterator[str]:
    """Whole lines, together about _PASSAGE_CHARS long; a longer line is cut."""
    for document in documents:
        passage = ""
        for line in document.splitlines():
            passage += line[:_PASSAGE_CHARS] + "\n"
            if len(passage) >= _PASSAGE_CHARS:
                yield passage.strip()
                passage = ""
        if passage.strip():
            yield passage.strip()
