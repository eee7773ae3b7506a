"""Bold and italics: which apostrophes of a line are markup, and which are text."""

import re

_RUN = re.compile("'{2,}")
_ITALIC, _BOLD, _BOTH = 2, 3, 5


def without_quotes(text: str) -> str:
    """The text without the apostrophes that are bold or italics, line by line as MediaWiki reads them.

    Four are one apostrophe and bold, more than five are text but for the last five. Where a line has an odd number of both
    bold and italics, one bold is an apostrophe and italics: the first after a word of one letter (l'''x''), else after a
    longer word (''Iliad'''s), else after a blank.
    """
    if "''" not in text:
        return text
    return "\n".join(_line(line) if "''" in line else line for line in text.split("\n"))


def _line(line: str) -> str:
    runs = [match.span() for match in _RUN.finditer(line)]
    lengths = [_markup_length(end - start) for start, end in runs]
    num_italic = sum(length in (_ITALIC, _BOTH) for length in lengths)
    num_bold = sum(length in (_BOLD, _BOTH) for length in lengths)
    if num_italic % 2 and num_bold % 2:
        candidates = [
            (_preference(line, end - _BOLD), i) for i, (length, (_, end)) in enumerate(zip(lengths, runs)) if length == _BOLD
        ]
        if candidates:
            lengths[min(candidates)[1]] = _ITALIC
    kept, at = [], 0
    for length, (_, end) in zip(lengths, runs):
        kept.append(line[at : end - length])
        at = end
    return "".join(kept) + line[at:]


def _markup_length(length: int) -> int:
    return _BOLD if length == _BOLD + 1 else min(length, _BOTH)


def _preference(line: str, start: int) -> int:
    """Of a bold as the one that is an apostrophe; less is sooner."""
    before, further = line[start - 1 : start] if start else "", line[start - 2 : start - 1] if start > 1 else ""
    if before == " ":
        return 2
    return 0 if further == " " else 1
