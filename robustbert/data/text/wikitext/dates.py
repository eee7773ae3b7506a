"""Dates in templates: {{start date}}, {{birth date}}, {{dts}}, {{as of}}, {{circa}}, {{reign}}."""

import re

from robustbert.data.text.wikitext.braces import Call

_MONTHS = "January February March April May June July August September October November December".split()
_ISO = re.compile(r"(\d{4})-(\d{1,2})(?:-(\d{1,2}))?\Z")
_YES = ("y", "yes", "true", "1", "on")


def date(call: Call, _language: str) -> str | None:
    """{{start date|1998|5|3}} and its kin: a year, a month, a day; `df=y` puts the day first."""
    numbers = [number for number in call.positional if number]
    if not numbers or not all(number.isdecimal() for number in numbers[:3]):
        return numbers[0] if numbers and not numbers[0].isdecimal() else None
    return written(numbers[:3], call.named.get("df", "") in _YES)


def birth_and_death(call: Call, language: str) -> str | None:
    """{{death date and age|2001|5|3|1920|1|2}}: the date of the death; the ages are of infoboxes."""
    return date(call._replace(positional=call.positional[:3]), language)


def written_date(call: Call, _language: str) -> str | None:
    """{{date|2015-03-10|mdy}}: ISO dates as text, others as they are; {{dts}} takes numbers too."""
    text, form = call.argument(1), (call.argument(2) or call.named.get("format", "")).lower()
    if match := _ISO.match(text):
        return written([number for number in match.groups() if number], form != "mdy")
    if text.isdecimal() and (call.argument(2).isdecimal() or not call.argument(2)):
        return date(call, _language)
    return text or None


def text_of_date(call: Call, _language: str) -> str | None:
    """{{birth-date|3 May 1998|age}}: the date as it is written."""
    return call.argument(1) or None


def as_of(call: Call, language: str) -> str | None:
    """{{as of|2010|5|lc=y}}: `as of May 2010`; since= and alt= are other words for it."""
    if alternative := call.named.get("alt"):
        return alternative
    words = "Since" if call.named.get("since") else "As of"
    if call.named.get("bare"):
        words = ""
    elif call.named.get("lc"):
        words = words.lower()
    numbers = [number for number in call.positional[:3] if number]
    if not numbers:
        return None
    months = [number if number.isdecimal() or i != 1 else _month(number) for i, number in enumerate(numbers)]
    when = written(months, call.named.get("df", "").upper() != "US") if all(m.isdecimal() for m in months) else " ".join(numbers)
    return f"{words} {when}".strip()


def circa(call: Call, _language: str) -> str:
    """{{circa|1850|1860}}: c. 1850 – c. 1860; without arguments: c."""
    return " – ".join(f"c. {year}" for year in call.positional[:2] if year) or "c."


def floruit(call: Call, _language: str) -> str:
    """{{floruit|1100|1150}}: fl. 1100–1150."""
    return _with_years("fl.", call)


def reigned(call: Call, _language: str) -> str:
    """{{reign|1558|1603}}: r. 1558–1603."""
    return _with_years("r.", call)


def born(call: Call, _language: str) -> str:
    """{{born|1850}}: b. 1850."""
    return _with_years("b.", call)


def died(call: Call, _language: str) -> str:
    """{{died|1850}}: d. 1850."""
    return _with_years("d.", call)


def duration(call: Call, _language: str) -> str | None:
    """{{duration|1|2|3}} and {{duration|m=4|s=5}}: 1:02:03 and 4:05."""
    names = ("h", "m", "s")
    parts = [call.named.get(name) or call.argument(number) for number, name in enumerate(names, 1)]
    given = [part for part in parts if part]
    if not all(part.isdecimal() for part in given) or not given:
        return None
    first, *others = given if parts[2] else [*given, "0"]
    return ":".join([first, *(part.zfill(2) for part in others)])


def old_style(call: Call, _language: str) -> str | None:
    """{{OldStyleDate|4 July|1776|23 June}}: 4 July [O.S. 23 June] 1776."""
    day, year, old = (call.argument(number) for number in (1, 2, 3))
    return f"{day} [O.S. {old}] {year}".strip() if day and old else None


def written(numbers: list[str], day_first: bool) -> str | None:
    """Year, month and day (as many as there are) as English writes them."""
    year, month, day = ([*numbers, "", ""])[:3]
    if not month:
        return year
    if not 1 <= int(month) <= 12:
        return None
    name = _MONTHS[int(month) - 1]
    if not day:
        return f"{name} {year}"
    return f"{int(day)} {name} {year}" if day_first else f"{name} {int(day)}, {year}"


def _month(name: str) -> str:
    return next((str(i) for i, month in enumerate(_MONTHS, 1) if month.lower().startswith(name.lower()[:3])), name)


def _with_years(word: str, call: Call) -> str:
    years = "–".join(year for year in call.positional[:2] if year)
    return f"{word} {years}".strip()
