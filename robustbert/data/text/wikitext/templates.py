"""The words of a template, or of a parser function, as an article shows them; and what is not known of the rest.

Wikipedia has hundreds of thousands of templates, and expanding one for certain takes MediaWiki and its Lua modules. The
ones that stand for words within sentences and are used most are in words.py, numbers.py, dates.py and measures.py
(English names, which most wikis share). A template that is in none of them, and not known to stand for no words, leaves
a mark behind (marks.py), so that the sentences that lack its words are counted.
"""

import re
from functools import partial

from robustbert.data.text.wikitext import dates, numbers
from robustbert.data.text.wikitext.braces import Call
from robustbert.data.text.wikitext.marks import missing, restored
from robustbert.data.text.wikitext.measures import convert
from robustbert.data.text.wikitext.no_words import stands_for_no_words
from robustbert.data.text.wikitext.words import words

_PREFIX = re.compile(r"(?:(?:subst|safesubst|msg|template|vorlage|modèle|plantilla|шаблон)\s*:\s*)+", re.IGNORECASE)
_BLANKS = re.compile(r"[\s_]+")
_FUNCTION = re.compile(r"(#?[^\W\d][\w#-]*):(.*)", re.DOTALL)
_MAX_NAME_CHARS = 60
_OF_VALUES = {
    **dict.fromkeys(("convert", "cvt-long", "bilanganconvert"), convert),
    **dict.fromkeys(("cvt", "convinfobox", "converted"), partial(convert, abbreviated=True)),
    "val": numbers.val,
    **dict.fromkeys(("frac", "fraction", "sfrac", "fract", "sfract", "mixed fraction", "tfrac", "1/2"), numbers.fraction),
    **dict.fromkeys(("ordinal", "ord"), numbers.ordinal),
    **dict.fromkeys(("e", "esp", "10^", "x10^"), numbers.power_of_ten),
    "pow": numbers.power,
    **dict.fromkeys(("percentage", "percent", "pct"), numbers.percentage),
    **dict.fromkeys(("currency", "price"), numbers.amount),
    **dict.fromkeys(("start date", "end date", "birth date", "birth-date and age", "start date and age", "dob"), dates.date),
    **dict.fromkeys(
        ("birth date and age", "bda", "film date", "release date", "end date and age", "start-date and age"), dates.date
    ),
    **dict.fromkeys(("death date", "death date and age", "dda", "death-date and age"), dates.birth_and_death),
    **dict.fromkeys(("dts", "date", "format date", "dmy", "mdy"), dates.written_date),
    **dict.fromkeys(("birth-date", "death-date", "start-date", "end-date", "birth year", "death year"), dates.text_of_date),
    **dict.fromkeys(("birth year and age", "death year and age"), dates.text_of_date),
    **dict.fromkeys(("as of", "asof"), dates.as_of),
    **dict.fromkeys(("circa", "c.", "ca", "ca.", "approx", "approx."), dates.circa),
    **dict.fromkeys(("floruit", "fl.", "fl", "flourished"), dates.floruit),
    **dict.fromkeys(("reign", "r.", "reigned"), dates.reigned),
    **dict.fromkeys(("born", "b."), dates.born),
    **dict.fromkeys(("died", "d.", "died-in"), dates.died),
    "duration": dates.duration,
    **dict.fromkeys(("oldstyledate", "old style date", "os"), dates.old_style),
}


def render(call: Call, title: str, language: str) -> str:
    """What stands in the article for a template; a mark where it stands for words that are not known.

    title: of the article; language: the wiki's code (en), which says how numbers are written.
    """
    name = _BLANKS.sub(" ", _PREFIX.sub("", restored(call.name).strip())).strip()
    if not name or len(name) > _MAX_NAME_CHARS and ":" not in name:
        return ""
    lowered = name.lower()
    if lowered in ("pagename", "fullpagename", "basepagename", "subpagename", "pagenamee"):
        return title
    if stands_for_no_words(lowered):
        return ""
    function = _FUNCTION.fullmatch(name)
    text = _of_function(function[1].lower(), function[2].strip(), call, language) if function else None
    if text is None:
        text = _of_template(call, lowered, language)
    if text is None:
        return "" if call.spans_lines else missing(function[1].lower() + ":" if function else name[:1].upper() + name[1:])
    return text


def _of_template(call: Call, name: str, language: str) -> str | None:
    if symbol := numbers.currency_symbol(name):
        return symbol + numbers.grouped(call.argument(1), language) if call.argument(1) else symbol.strip()
    if name in ("nts", "number table sorting", "formatnum", "commas", "number format"):
        return numbers.grouped(call.argument(1), language) or None
    function = _OF_VALUES.get(name)
    return function(call, language) if function else words(call, name, language)


def _of_function(name: str, value: str, call: Call, language: str) -> str | None:
    """The parser functions that need no other page, and no arithmetic."""
    arguments = call.positional
    if name == "formatnum":
        return numbers.format_number(value, arguments, language)
    if name in ("lc", "uc"):
        return value.lower() if name == "lc" else value.upper()
    if name in ("ucfirst", "lcfirst"):
        return (value[:1].upper() if name == "ucfirst" else value[:1].lower()) + value[1:]
    if name == "#if":
        return call.argument(1 if value else 2)
    if name == "#ifeq":
        return call.argument(2 if value == call.argument(1) else 3)
    if name == "plural":
        return call.argument(1 if value == "1" else 2) or call.argument(1)
    if name in ("padleft", "urlencode", "anchorencode", "ns", "int", "nowiki"):
        return value
    return None
