"""One token of a byte-level BPE, three numbers: GPT-2's (encoder.json), its line in fairseq's dict.txt, RoBERTa's id.

RoBERTa's id is the index of the line in dict.txt plus 4: <s> 0, <pad> 1, </s> 2, <unk> 3 come first, <mask> last.
dict.txt has the most frequent token first and calls it by GPT-2's number. Lines named `madeupword0000` fill it up to a
round size: ids that no text uses, and that GPT-2 does not have. Hugging Face's vocab.json holds RoBERTa's ids.
GPT-2's numbers follow from the merges: the 256 bytes, then what each merge makes, then what is neither (`<|endoftext|>`).
"""

from collections.abc import Iterable
from pathlib import Path

from robustbert.data.errors import DataError
from robustbert.data.tokenizer.base import read_text

BOS, PAD, EOS, UNK, MASK = "<s>", "<pad>", "</s>", "<unk>", "<mask>"
SPECIALS = (BOS, PAD, EOS, UNK, MASK)
NUM_LEADING_SPECIALS = 4
_MADE_UP = "madeupword"


def roberta_numbers(tokens: Iterable[str]) -> dict[str, int]:
    """The whole vocabulary, token -> RoBERTa's id, of its tokens without specials in the order of dict.txt."""
    return {token: i for i, token in enumerate((*SPECIALS[:NUM_LEADING_SPECIALS], *tokens, MASK))}


def read_dictionary(path: Path, gpt2: dict[str, int]) -> list[str]:
    """The tokens that the lines of dict.txt stand for, in their order; gpt2: encoder.json.

    DataError where a line is no id of encoder.json, or the two do not have the same tokens.
    """
    tokens = {i: token for token, i in gpt2.items()}
    lines = read_text(path).splitlines()
    if lines and lines[-1].split(" ")[0] == MASK:  # where it would come anyhow
        lines.pop()
    order = []
    for number, line in enumerate(lines, 1):
        name = line.split(" ")[0]
        if name.isdecimal() and int(name) in tokens:
            order.append(tokens[int(name)])
        elif name.startswith(_MADE_UP):
            order.append(name)
        else:
            raise DataError(
                f"{path}: line {number} ({line[:40]!r}) is no id of encoder.json; use the dict.txt of the same model"
            )
    missing = len(tokens) - sum(not token.startswith(_MADE_UP) for token in order)
    if missing or len(set(order)) != len(order):
        raise DataError(
            f"{path}: names {len(set(order))} tokens in {len(order)} lines, encoder.json has {len(tokens)}; "
            "it is cut off or belongs to another model; download it again"
        )
    return order


def gpt2_numbers(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> dict[str, int]:
    """encoder.json again, token -> GPT-2's number, from RoBERTa's vocabulary and the merges."""
    others = (token for token in sorted(vocabulary, key=vocabulary.__getitem__) if not token.startswith(_MADE_UP))
    order = dict.fromkeys((*BYTE_OF, *(left + right for left, right in merges), *others))
    known = (token for token in order if token in vocabulary and token not in SPECIALS)
    return {token: i for i, token in enumerate(known)}


def dictionary_names(vocabulary: dict[str, int], gpt2: dict[str, int]) -> list[str]:
    """The names that stand in dict.txt, in their order; gpt2: as gpt2_numbers gives it for the same vocabulary."""
    order = sorted(vocabulary, key=vocabulary.__getitem__)[NUM_LEADING_SPECIALS:]
    return [str(gpt2.get(token, token)) for token in order if token != MASK]


def _byte_alphabet() -> dict[str, int]:
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


# GPT-2 writes each byte as one printable character; in the order of its numbers.
BYTE_OF = _byte_alphabet()
