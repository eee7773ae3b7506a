"""Characters that stand for something while wikitext is worked on; all are of Unicode's private use area.

Text that a template, an entity or <nowiki> gives is data: its `|`, `=`, `'` are no markup of what stands around it.
"""

import re

from robustbert.data.text.sentences import split_sentences

_OF_MARKUP = "|='[]{}<>&*#:;!"
_DATA = {ord(character): chr(0xE100 + ord(character)) for character in set(_OF_MARKUP)}
_BACK = {ord(data): chr(character) for character, data in _DATA.items()}
_EQUALS = "\ue001"
NOTHING = "\ue012"  # stands between characters that are no markup together
SUPERSCRIPT, AFTER_SUBSCRIPT = "\ue010", "\ue011"  # in front of what stands above the line; behind what stands below
_MISSING = re.compile("\ue020([^\ue021]*)\ue021")
_ALONE_IN_LINE = re.compile("^[ \t]*(?:\ue020[^\ue021]*\ue021[ \t.,;:]*)+$", re.MULTILINE)
_EXPONENT = re.compile(rf"(?<=\d){SUPERSCRIPT}(?=[-−+]?\d)")
_OURS = re.compile("[\ue000-\ue1ff]")


def without_marks(text: str) -> str:
    """The text without characters that would be taken for marks; a dump has hardly any."""
    return _OURS.sub("", text)


def as_data(text: str) -> str:
    """The text, with no character in it that markup is made of."""
    return text.translate(_DATA)


def as_part(text: str) -> str:
    """The text of a template or a link inside of another template's argument: its `=` does not name the argument."""
    return text.replace("=", _EQUALS)


def as_whole(text: str) -> str:
    """What as_part kept apart is wikitext again."""
    return text.replace(_EQUALS, "=")


def restored(text: str) -> str:
    """The text with its characters back; 10<sup>6</sup> is 10^6, any other superscript stands on the line."""
    return _EXPONENT.sub("^", text).replace(SUPERSCRIPT, "").replace(AFTER_SUBSCRIPT, "").replace(NOTHING, "").translate(_BACK)


def missing(name: str) -> str:
    """What stands in the text for words that cannot be told: those of a template or an element of this name."""
    return f"\ue020{as_data(name)}\ue021"


def take_missing(text: str) -> tuple[str, int, list[str]]:
    """The text without the marks of missing words, how many of its sentences lack some, and the names of what stood there.

    A mark alone in its line stood for a block (a box, a banner): no sentence lacks it.
    """
    if "\ue020" not in text:
        return text, 0, []
    text = _ALONE_IN_LINE.sub("", text)
    names = [restored(name) for name in _MISSING.findall(text)]
    if not names:
        return text, 0, []
    paragraphs = (paragraph for paragraph in re.split(r"\n\s*\n", text) if "\ue020" in paragraph)
    sentences = [sentence for paragraph in paragraphs for sentence in split_sentences(_MISSING.sub("\ue020", paragraph))]
    return _MISSING.sub("", text), sum("\ue020" in sentence for sentence in sentences), names
