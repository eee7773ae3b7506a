"""What stands in braces: templates, parameters and tables, taken apart in one pass from the innermost outwards."""

import re
from collections.abc import Callable
from typing import NamedTuple

from robustbert.data.text.wikitext.marks import as_part, as_whole

_TOKEN = re.compile(r"^[ :*#]*\{\|(?!\})|^[ ]*\|\}(?!\})|\{\{+|\}\}+|\[\[|\]\]|\|", re.MULTILINE)
_TABLE, _LINK = "{|", "[["
_PARAMETER_BRACES = 3


class Call(NamedTuple):
    """A template as it is called: its name, its arguments in order, those with a name; spans_lines: as it is written."""

    name: str
    positional: list[str]
    named: dict[str, str]
    spans_lines: bool

    def argument(self, number: int) -> str:
        """The argument of this number, from 1, also where it is named so; empty where there is none."""
        if number <= len(self.positional) and self.positional[number - 1]:
            return self.positional[number - 1]
        return self.named.get(str(number), "")


class _Open:
    """Something opened: its brackets, and the text inside so far, parted at `|`."""

    def __init__(self, brackets: str):
        self.brackets = brackets
        self.parts: list[list[str]] = [[]]

    def flat(self) -> str:
        return "|".join("".join(part) for part in self.parts)


def expand(text: str, render: Callable[[Call], str]) -> str:
    """The text with its templates as render gives them, parameters as their defaults, and without tables.

    As MediaWiki does it: braces match from the inside, three of them are a parameter, `|` inside of a link parts no
    arguments, and what an inner template gives neither. What is opened and never closed stays, but for its braces.
    """
    stack = [_Open("")]
    at = 0
    for match in _TOKEN.finditer(text):
        if match.start() > at:
            stack[-1].parts[-1].append(text[at : match.start()])
        at = match.end()
        token = match[0].strip(" :*#")
        if token == "|":
            _part(stack)
        elif token == _TABLE or token == _LINK or token.startswith("{{"):
            stack.append(_Open(token))
        elif token == "]]":
            _close_link(stack)
        elif token == "|}":
            _close_table(stack)
        else:
            _close_braces(stack, len(token), render)
    stack[-1].parts[-1].append(text[at:])
    while len(stack) > 1:
        _give_up(stack)
    return as_whole(stack[0].flat())


def _part(stack: list[_Open]) -> None:
    if stack[-1].brackets.startswith("{{"):
        stack[-1].parts.append([])
    else:
        stack[-1].parts[-1].append("|")


def _give_up(stack: list[_Open]) -> None:
    """Take what was opened last for text."""
    unclosed = stack.pop()
    stack[-1].parts[-1].append(("[[" if unclosed.brackets == _LINK else "") + unclosed.flat())


def _close_link(stack: list[_Open]) -> None:
    if stack[-1].brackets != _LINK:
        stack[-1].parts[-1].append("]]")
        return
    link = f"[[{stack.pop().flat()}]]"
    in_argument = any(opened.brackets.startswith("{{") for opened in stack)
    stack[-1].parts[-1].append(as_part(link) if in_argument else link)


def _close_table(stack: list[_Open]) -> None:
    if any(opened.brackets == _TABLE for opened in stack):
        while stack.pop().brackets != _TABLE:
            pass


def _close_braces(stack: list[_Open], num_closing: int, render: Callable[[Call], str]) -> None:
    while num_closing >= 2:
        # A link that is still open in here is none; a table's end may be missing, too.
        if not any(opened.brackets.startswith("{{") for opened in stack):
            return
        while not stack[-1].brackets.startswith("{{"):
            _give_up(stack)
        opened = stack.pop()
        num_opening = len(opened.brackets)
        num = min(num_opening, num_closing, _PARAMETER_BRACES)
        parts = ["".join(part) for part in opened.parts]
        if num == _PARAMETER_BRACES:
            text = parts[1] if len(parts) > 1 else ""
        else:
            text = render(_call([as_whole(parts[0]), *parts[1:]]))
        num_closing -= num
        rest = num_opening - num
        if rest >= 2:
            stack.append(_Open("{" * rest))
        in_argument = any(outer.brackets.startswith("{{") for outer in stack)
        stack[-1].parts[-1].append(as_part(text) if in_argument else text)


def _call(parts: list[str]) -> Call:
    positional, named = [], {}
    for part in parts[1:]:
        name, equals, value = part.partition("=")
        name = name.strip()
        if not equals:
            positional.append(part.strip())
        elif name.isdecimal() and int(name) == len(positional) + 1:
            positional.append(value.strip())
        else:
            named[name.lower()] = value.strip()
    return Call(parts[0], positional, named, "\n" in "|".join(parts).strip())
