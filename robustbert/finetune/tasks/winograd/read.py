"""Reads Winograd sentences: SuperGLUE's WSC, which marks pronoun and referent, and WNLI's pairs, in which they are found."""

import re
from dataclasses import dataclass
from pathlib import Path

from robustbert.data.errors import DataError
from robustbert.finetune.tasks.json_data import field, load_json_lines
from robustbert.finetune.tasks.tables import Columns, read_rows
from robustbert.finetune.tasks.winograd.pairs import find_reference

_SPACE_BEFORE = re.compile(r" +(?=[.,;:?!]|'s\b|n't\b)")
_PUNCTUATION = ".,;:?!\"'"


@dataclass(frozen=True)
class Reference:
    """A sentence with a pronoun and a phrase that it may stand for.

    pronoun: its characters (start, end) in the text. label: whether it stands for the query, None in a test set.
    index: as the leaderboard wants it back.
    """

    index: str
    text: str
    pronoun: tuple[int, int]
    query: str
    label: bool | None


def read_wsc(path: Path, need_label: bool = True) -> list[Reference]:
    """The lines of SuperGLUE's train.jsonl, val.jsonl or test.jsonl. DataError with file and line for what is not as there."""
    references = []
    for place, line in load_json_lines(path):
        text, target = field(line, "text", str, place), field(line, "target", dict, place)
        number, pronoun = field(target, "span2_index", int, place), field(target, "span2_text", str, place)
        query = " ".join(field(target, "span1_text", str, place).split()).strip(".,")
        if not query:
            raise DataError(f"{place}: `span1_text` names no referent; mend or drop the line")
        label = field(line, "label", bool, place) if need_label else None
        index = str(field(line, "idx", int, place))
        references.append(Reference(index, *_with_pronoun(text, number, pronoun.strip(_PUNCTUATION), place), query, label))
    if not references:
        raise DataError(f"{path}: is empty; download it again")
    return references


def read_wnli(path: Path, need_label: bool = True) -> list[Reference]:
    """The rows of WNLI's dev.tsv or test.tsv; pronoun and referent are found from the pair of sentences.

    DataError with file and line: as read_rows, an unknown label, no pronoun in the first sentence.
    """
    references = []
    names = ("index", "sentence1", "sentence2", *(("label",) if need_label else ()))
    for row in read_rows(path, Columns([(name,) for name in names])):
        found = find_reference(row["sentence1"], row["sentence2"])
        if found is None:
            raise row.error("the first sentence has no pronoun that the second one replaces; is it WNLI's official file?")
        if need_label and row["label"] not in ("0", "1"):
            raise row.error(f"unknown label {row['label']!r}; WNLI has '0' and '1'")
        label = row["label"] == "1" if need_label else None
        references.append(Reference(row["index"], row["sentence1"], found.pronoun, found.phrase, label))
    return references


def _with_pronoun(text: str, number: int, pronoun: str, place: str) -> tuple[str, tuple[int, int]]:
    """The text as it is written, without the spaces of its tokens, and the pronoun's characters in it."""
    words = text.split(" ")
    # In some of the published lines the number is one too low.
    for i in (number, number + 1):
        if 0 <= i < len(words) and words[i].strip(_PUNCTUATION) == pronoun:
            before = _SPACE_BEFORE.sub("", " ".join(words[:i]))
            head, tail = words[i].split(pronoun, 1)
            lead = f"{before} {head}" if before else head
            behind = _SPACE_BEFORE.sub("", " ".join([tail, *words[i + 1 :]]))
            # White space around it goes: words are counted with it, and no other sentence has any.
            offset = len(lead) - len(lead.lstrip())
            return (lead[offset:] + pronoun + behind).rstrip(), (len(lead) - offset, len(lead) - offset + len(pronoun))
    at = " ".join(words[max(0, number - 1) : number + 2])
    raise DataError(f"{place}: the pronoun {pronoun!r} is not the word {number} of the text (there is {at!r}); mend the line")
