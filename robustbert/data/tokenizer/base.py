"""What every tokenizer is to the rest of the project: ids, special tokens by their role, and where words begin.

byte_bpe.py and wordpiece.py hold the two kinds, tokenizer.py reads and trains them.
"""

import hashlib
import json
import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np

from robustbert.data.errors import DataError
from robustbert.data.tokenizer.settings import Settings


class Tokenizer(ABC):
    """A text encoding; it does not change after it was made.

    vocabulary: token -> id, ids 0 .. vocab_size - 1 without a gap, the specials among them.
    specials: the tokens that begin a block, pad it, end a segment, stand for what has no id, and mask, in this order.
    settings: what else changes ids, such as added tokens, which are in the vocabulary and are recognised in any text.
    """

    # The words of a text that are encoded each by itself, whatever stands around them; see encoder.py.
    _word_pattern: re.Pattern
    # How many end tokens part the two segments of a pair.
    _num_separators: int

    def __init__(self, vocabulary: dict[str, int], specials: tuple[str, str, str, str, str], settings: Settings = Settings()):
        self._vocabulary = vocabulary
        self.settings = settings
        self.vocab_size = len(vocabulary)
        self.bos_id, self.pad_id, self.eos_id, self.unk_id, self.mask_id = (vocabulary[token] for token in specials)
        self.special_ids = (self.bos_id, self.pad_id, self.eos_id, self.unk_id, self.mask_id)
        self.pair_separator = (self.eos_id,) * self._num_separators
        self.special_tokens = specials
        self._is_special = np.zeros(self.vocab_size, bool)
        self._is_special[list(self.special_ids)] = True

    @property
    def word_pattern(self) -> re.Pattern | None:
        """What finds the words of a text that are encoded each by itself, of the characters that encoder.py knows well.

        None where settings make ids depend on more than the word: then a text is encoded whole.
        """
        return None if self.settings != Settings() else self._word_pattern

    @cached_property
    def sha256(self) -> str:
        """Hash of all that makes the ids, the same whatever files it was read from."""
        return hashlib.sha256(json.dumps(self._identity(), ensure_ascii=True).encode()).hexdigest()

    def encode(self, text: str, recognise_specials: bool = False) -> list[int]:
        """The ids of a text, without special tokens around them.

        A text that happens to hold the name of a special token (`</s>`, `[MASK]`) is text: its characters are encoded like
        any others, so a corpus cannot inject a special token. recognise_specials=True is for prompts: there the name is the
        special token, as in Hugging Face's tokenizer.
        """
        return (self._with_specials if recognise_specials else self._plain).encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """The ids of many texts, each encoded as text (specials are not recognised)."""
        return [encoding.ids for encoding in self._plain.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: Iterable[int], skip_specials: bool = False) -> str:
        """The text of ids; specials appear by their names unless they are skipped."""
        return self._with_specials.decode([int(i) for i in ids], skip_special_tokens=skip_specials)

    def is_special(self, ids: np.ndarray) -> np.ndarray:
        """For an array of ids: which of them are specials (bool, the same shape)."""
        return self._is_special[ids]

    def token_ids(self) -> dict[str, int]:
        """The vocabulary, token -> id: a copy."""
        return dict(self._vocabulary)

    def gpt2_ids(self) -> np.ndarray | None:
        """The id of each of GPT-2's numbers (encoder.json), int64; None where the kind has no such numbers."""
        return None

    @abstractmethod
    def word_edges(self) -> tuple[np.ndarray, np.ndarray]:
        """For whole-word masking, by id: whether a token begins a word, and whether what follows it does (both bool)."""

    def save(self, folder: str | Path) -> None:
        """Write what load_tokenizer and Hugging Face's AutoTokenizer read; replaces the folder.

        The folder appears whole or not at all. DataError where it cannot be written.
        """
        folder = Path(folder)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as partial:
                whole = Path(partial) / folder.name
                whole.mkdir()
                self._write_files(whole)
                if folder.exists():
                    os.rename(folder, Path(partial) / "replaced")
                os.rename(whole, folder)
        except OSError as error:
            raise DataError(f"{folder}: the tokenizer cannot be written ({error}); choose another place") from None

    @abstractmethod
    def _identity(self) -> list:
        """What makes the ids, as JSON can say it."""

    def _identity_of_settings(self) -> list:
        added = [token._replace(special=False) for token in self.settings.added]  # which one it is changes no id
        return [] if self.settings == Settings() else [self.settings._replace(added=added)]

    def _is_whole_word(self) -> np.ndarray:
        """By id: the specials and the added tokens (bool), which are words by themselves."""
        whole = self._is_special.copy()
        whole[[self._vocabulary[token.content] for token in self.settings.added]] = True
        return whole

    @abstractmethod
    def _write_files(self, folder: Path) -> None:
        """Write the files of save() into an empty folder."""

    @property
    @abstractmethod
    def _plain(self):
        """The library's tokenizer, without special tokens."""

    @property
    @abstractmethod
    def _with_specials(self):
        """The library's tokenizer that recognises the names of special tokens."""

    def _tokens_by_id(self) -> list[str]:
        return sorted(self._vocabulary, key=self._vocabulary.__getitem__)


def config_of(settings: Settings, vocabulary: dict[str, int], own_class: str, model_inputs: Iterable[str]) -> dict:
    """What tokenizer_config.json says of the settings; own_class: the class of transformers where there are none.

    model_inputs: what a model is given; the general class does not know.
    """
    config = {"tokenizer_class": own_class}
    if settings.need_tokenizer_json:
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": list(model_inputs)}
    if settings.added:
        config["added_tokens_decoder"] = {str(vocabulary[token.content]): token._asdict() for token in settings.added}
    return config


def check_ids(path: Path, vocabulary: dict[str, int]) -> None:
    """DataError where the ids of a vocabulary that was read from `path` have gaps."""
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise DataError(f"{path}: {len(vocabulary)} tokens, but their ids are not 0 .. {len(vocabulary) - 1}; it is damaged")


def read_json(path: Path):
    """The content of a JSON file of a tokenizer; DataError where it is missing or damaged."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON ({error}); it is damaged, download it again") from None


def read_text(path: Path) -> str:
    """The content of a text file of a tokenizer; DataError where it is missing or damaged."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path}: missing; {FORMATS}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); download it again") from None


def write_json(path: Path, value) -> None:
    """Write one of a tokenizer's JSON files."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=None), encoding="utf-8")


FORMATS = (
    "a tokenizer's folder has vocab.json and merges.txt (RoBERTa's ids), or GPT-2's encoder.json and vocab.bpe "
    "with an optional dict.txt, or BERT's vocab.txt, or tokenizer.json of one of the two kinds"
)
