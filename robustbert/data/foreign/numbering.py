"""From a library's numbers to the tokenizer's ids: fairseq's dict.txt, GPT-2's own numbers, or the tokenizer's ids as they are."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robustbert.data.errors import DataError
from robustbert.data.foreign.layouts import FAIRSEQ, FAIRSEQ_CACHED, ForeignIndex
from robustbert.data.tokenizer import Tokenizer

_FAIRSEQ_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")  # ids 0 to 3 of every dictionary; dict.txt does not list them
_MADE_UP = "madeupword"  # fairseq-preprocess fills a dictionary up to a multiple of eight with these


@dataclass(frozen=True)
class Numbering:
    """name: for people. table: int64, the tokenizer's id of each stored one, -1 where there is none."""

    name: str
    table: np.ndarray

    @property
    def is_identity(self) -> bool:
        """Whether stored ids are the tokenizer's."""
        return bool((self.table == np.arange(len(self.table))).all())

    def ids(self, items: np.ndarray) -> np.ndarray:
        """The tokenizer's ids (int64) of stored ones; -1 where there is none."""
        items = items.astype(np.int64)
        is_known = (items >= 0) & (items < len(self.table))
        return np.where(is_known, self.table[np.where(is_known, items, 0)], -1)


def possible_numberings(index: ForeignIndex, tokenizer: Tokenizer) -> Iterator[Numbering]:
    """The numberings that the stored ids may have, the most likely first. DataError: a dict.txt that cannot be read."""
    own = np.arange(tokenizer.vocab_size)
    if index.kind not in (FAIRSEQ, FAIRSEQ_CACHED):
        yield Numbering("the tokenizer's ids", own)
        gpt2 = tokenizer.gpt2_ids()
        if gpt2 is not None and not np.array_equal(gpt2, own):
            yield Numbering("GPT-2's numbers (encoder.json)", gpt2)
        return
    path = index.prefix.parent / "dict.txt"
    if path.is_file():
        yield _shifted(Numbering("the lines of dict.txt", dictionary_table(path, tokenizer)), index.id_shift)
    else:
        yield _shifted(Numbering("the tokenizer's ids, as there is no dict.txt beside it", own), index.id_shift)


def dictionary_table(path: Path, tokenizer: Tokenizer) -> np.ndarray:
    """The tokenizer's id of every id of a dictionary, -1 where it has none: int64.

    Line i, from 0 on, is id i + 4, as fairseq 0.12.2's Dictionary.add_from_file counts them. A name is a number of GPT-2's
    (what RoBERTa's dict.txt has), or where not all are numbers, the token itself.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); copy the dict.txt of the data again") from None
    names = []
    for number, line in enumerate(lines, 1):
        name, _, count = line.rstrip().removesuffix(" #fairseq:overwrite").rpartition(" ")
        if not name or not count.isdecimal():
            raise DataError(f"{path}: line {number} ({line[:40]!r}) is not `token count`; it is damaged, or no fairseq dictionary")
        names.append(name)
    ids, gpt2 = tokenizer.token_ids(), tokenizer.gpt2_ids()
    plain = [name for name in names if not name.startswith(_MADE_UP) and name not in ids]
    by_number = gpt2 is not None and all(name.isdecimal() for name in names if not _is_special(name))
    if by_number:
        found = [int(gpt2[int(name)]) if name.isdecimal() and int(name) < len(gpt2) else -1 for name in names]
        found = [_special_id(name, tokenizer) if _is_special(name) else id_ for name, id_ in zip(names, found)]
    else:
        found = [_special_id(name, tokenizer) if name == "<mask>" else ids.get(name, -1) for name in names]
    if plain and all(id_ < 0 for name, id_ in zip(names, found) if not name.startswith(_MADE_UP)):
        raise DataError(f"{path}: none of its {len(names)} tokens ({plain[0]!r}, ...) is the tokenizer's; give data.tokenizer its own")
    return np.array([*(_special_id(name, tokenizer) for name in _FAIRSEQ_SPECIALS), *found], np.int64)


def _is_special(name: str) -> bool:
    return name.startswith(_MADE_UP) or name == "<mask>"


def _special_id(name: str, tokenizer: Tokenizer) -> int:
    ids = (tokenizer.bos_id, tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id, tokenizer.mask_id)
    return dict(zip((*_FAIRSEQ_SPECIALS, "<mask>"), ids)).get(name, -1)


def _shifted(numbering: Numbering, shift: int) -> Numbering:
    return Numbering(numbering.name, np.concatenate([np.full(shift, -1), numbering.table])) if shift else numbering
