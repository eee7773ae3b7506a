"""Finds in a pair of WNLI the pronoun of the first sentence and the phrase that the second one has in its place.

The second sentence repeats a part of the first, more or less: `... because it was too high.` / `The pot was too high.`
"""

import re
from dataclasses import dataclass

PRONOUNS = frozenset("he she it they him her them his hers its their theirs himself herself itself themselves".split())
_WORD = re.compile(r"\w+(?:(?!['’]s\b)[-.'’]\w+)*|['’]s\b|[^\w\s]")
_BEFORE_VERBS = (["he"], ["she"], ["it"], ["they"])
_DETERMINERS = frozenset("the a an my his her their its our your some".split())
_REACH = 12  # words that the part before or behind the pronoun may be longer in the first sentence
# A word of the second sentence counts 1 where it stands right beside the pronoun in the first, in one piece with the others.
_SCATTERED = -0.25  # where it stands on the right side, but apart
_UNMATCHED = -0.5  # where it stands on neither side
_IN_TEXT = 5.0  # for a phrase that the first sentence has, too


@dataclass(frozen=True)
class Found:
    """pronoun: its characters in the first sentence. phrase: what the second sentence has for it."""

    pronoun: tuple[int, int]
    phrase: str


def find_reference(first: str, second: str) -> Found | None:
    """The pronoun and the phrase that explain the second sentence best; None where the first one has no pronoun.

    For every pronoun the words before it and behind it are compared with the second sentence's start and end; the phrase is
    what lies between.
    """
    words, spans = _words(first)
    other, other_spans = _words(second)
    best_value, best = float("-inf"), None
    for i, word in enumerate(words):
        if word not in PRONOUNS:
            continue
        reach = len(other) + _REACH
        before = _values(words[max(0, i - reach) : i][::-1], other)
        behind = _values(words[i + 1 : i + 1 + reach], other[::-1])
        for start in range(len(other)):
            for end in range(start + 1, len(other) + 1):
                value = before[start] + behind[len(other) - end]
                if value + _IN_TEXT > best_value:
                    value += _IN_TEXT * _is_in(other[start:end], words, i)
                    if value > best_value:
                        best_value = value
                        best = spans[i], second[other_spans[start][0] : other_spans[end - 1][1]]
    if best is None:
        return None
    pronoun, phrase = best
    return Found(pronoun, re.sub(r"['’]s?$", "", phrase))


def _words(text: str) -> tuple[list[str], list[tuple[int, int]]]:
    matches = list(_WORD.finditer(text))
    return [match.group().lower() for match in matches], [match.span() for match in matches]


def _values(words: list[str], other: list[str]) -> list[float]:
    """What the first n words of `other` are worth for every n, given the words on that side, the pronoun's neighbour first."""
    values, common = [0.0], [0] * (len(words) + 1)  # common: subsequence of other[:n] and the last words, from each one on
    reversed_words = words[::-1]
    for n, another in enumerate(other, 1):
        diagonal = 0
        for place, word in enumerate(reversed_words, 1):
            above = common[place]
            common[place] = diagonal + 1 if word == another else max(above, common[place - 1])
            diagonal = above
        adjacent = 0
        while adjacent < min(n, len(words)) and other[n - 1 - adjacent] == words[adjacent]:
            adjacent += 1
        scattered = max(common[-1] - adjacent, 0)
        values.append(adjacent + _SCATTERED * scattered + _UNMATCHED * (n - adjacent - scattered))
    return values


def _is_in(phrase: list[str], words: list[str], pronoun: int) -> bool:
    """Whether the text has the phrase, whatever its determiner, and with or without a possessive ending.

    What ends right before the pronoun, or follows one as a verb would, does not count: it is there to be repeated.
    """
    start = int(phrase[0] in _DETERMINERS)
    end = len(phrase) - (phrase[-1] in ("'s", "’s", "'", "’"))
    core = phrase[start:end]
    if not core or core[0] in PRONOUNS or not core[0][0].isalnum() or not core[-1][0].isalnum():
        return False
    places = (i for i in range(len(words) - len(core) + 1) if words[i : i + len(core)] == core)
    return any(i + len(core) != pronoun and words[i - 1 : i] not in _BEFORE_VERBS for i in places)
