"""{{convert}}: a measure in words or symbols, and the same in another unit, rounded as the template does it."""

import math
import re
from typing import NamedTuple

from robustbert.data.text.wikitext.braces import Call
from robustbert.data.text.wikitext.numbers import grouped, power_word
from robustbert.data.text.wikitext.units import ALIASES, COMPOSED, UNITS, Unit

_BETWEEN = {
    "to": (" to ", " to "), "-": ("–", "–"), "–": ("–", "–"), "and": (" and ", " and "), "or": (" or ", " or "),
    "to(-)": (" to ", "–"), "x": (" by ", " × "), "×": (" by ", " × "), "by": (" by ", " by "), "*": ("×", "×"),
    "xx": (" × ", " × "), "+/-": (" ± ", " ± "), "±": (" ± ", " ± "), "&": (" and ", " and "), "and(-)": (" and ", " and "),
    "to about": (" to about ", " to about "), ",": (", ", ", "), "+": (" + ", " + "),
}  # fmt: skip
_PER_SIDE = ("x", "×")  # each number gets the symbol: 13 m × 5 m
_VALUE = re.compile(r"[-−+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-−+]?\d+)?\Z")
_FRACTION = re.compile(r"([-−]?)(?:(\d+)\s*\+\s*)?(\d+)(?://?|⁄)(\d+)\Z")
_SCALED = re.compile(r"(e\d+)(\w.*)")
_US_SPELLING = re.compile(r"(met|lit)re")


class _Amount(NamedTuple):
    """A number as it is written in the text, its value, and how many of its digits count (by decimals)."""

    text: str
    value: float
    decimals: float


def convert(call: Call, language: str, abbreviated: bool = False) -> str | None:
    """The text of {{convert|...}}, or of {{cvt}}, which abbreviates; None for arguments that make no measure.

    A unit that is not in the table stays as it is written, and is not converted.
    """
    arguments = [_plain(argument) for argument in call.positional]
    amounts, betweens, rest = _amounts(arguments)
    if not amounts or not rest or not rest[0]:
        return None
    unit, outputs = rest[0], rest[1:]
    parts = [(amounts, unit)]
    while len(outputs) >= 2 and not betweens and (more := _amount(outputs[0])) and _same_kind(outputs[1], unit):
        parts.append(([more], outputs[1]))
        outputs = outputs[2:]
    target, digits = _outputs(outputs)
    style = _Style(call, abbreviated)
    source = _composed(parts, style) if len(parts) > 1 else _written(amounts, betweens, unit, style.input_symbol, style, True)
    converted = _converted(parts, betweens, target or _default(parts, unit), digits, style)
    if not converted or style.display == "none":
        return source
    if style.flipped:
        source, converted = converted, source
    if style.display in ("output only", "out", "output number only", "number"):
        return converted
    if style.display in ("or", "comma", "br", "/", "slash"):
        return source + {"or": " or ", "comma": ", ", "br": " "}.get(style.display, " / ") + converted
    if style.display in ("b", "[]", "sqbr"):
        return f"{source} [{converted}]"
    return f"{source} ({converted})"


class _Style:
    """What abbr=, adj=, disp=, order=, sp=, sigfig= and round= ask for."""

    def __init__(self, call: Call, abbreviated: bool):
        abbr = call.named.get("abbr", "on" if abbreviated else "")
        self.display = call.named.get("disp", "")
        self.flipped = call.named.get("order") == "flip" or self.display == "flip"
        self.input_symbol = abbr in ("on", "in", "y", "yes")
        self.output_symbol = abbr not in ("off", "none", "in")
        if self.flipped and abbr in ("", "out"):
            self.input_symbol, self.output_symbol = True, False
        self.is_spelt_out = abbr in ("off", "none")
        self.is_us = call.named.get("sp", "").lower() == "us"
        adj = call.named.get("adj", "")
        self.is_adjective = adj in ("on", "mid")
        self.middle = next((a for a in call.positional[-1:] if adj == "mid" and a.startswith("-")), "")
        self.follows = call.positional[-1] if adj == "mid" and not self.middle and len(call.positional) > 3 else ""
        self.sigfig = call.named.get("sigfig") or call.named.get("sf") or ""
        self.round = call.named.get("round", "")


def _plain(argument: str) -> str:
    return argument.replace("&nbsp;", " ").replace("&minus;", "−").replace("&ndash;", "–").replace("\u00a0", " ").strip()


def _amounts(arguments: list[str]) -> tuple[list[_Amount], list[str], list[str]]:
    """The numbers, what stands between them, and the arguments after them."""
    amounts, betweens = [], []
    for i in range(0, len(arguments), 2):
        amount = _amount(arguments[i])
        if amount is None:
            break
        amounts.append(amount)
        following = arguments[i + 1] if i + 1 < len(arguments) else ""
        if following not in _BETWEEN or i + 2 >= len(arguments):
            return amounts, betweens, arguments[i + 1 :]
        betweens.append(following)
    return amounts, betweens[: max(0, len(amounts) - 1)], arguments[2 * len(amounts) :]


def _amount(text: str) -> _Amount | None:
    cleaned = text.replace(",", "").replace(" ", "")
    if _VALUE.match(cleaned):
        ascii_text = cleaned.replace("−", "-")
        mantissa, _, exponent = ascii_text.lower().partition("e")
        _, point, decimals = mantissa.partition(".")
        digits = mantissa.lstrip("+-")
        significant = len(decimals) if point else -(len(digits) - len(digits.rstrip("0"))) if digits.strip("0") else 0
        shown = f"{grouped(mantissa)}×10^{exponent}" if exponent else grouped(ascii_text)
        return _Amount(shown.replace("-", "−"), float(ascii_text), significant - int(exponent or 0))
    if match := _FRACTION.match(text.replace("−", "-")):
        sign, whole, over, under = match.groups()
        if int(under):
            value = int(whole or 0) + int(over) / int(under)
            decimals = max(1.0, math.log10(int(under)))
            return _Amount(f"{sign}{f'{whole} ' if whole else ''}{over}/{under}", -value if sign else value, decimals)
    return None


def _unit(code: str) -> Unit | None:
    code = ALIASES.get(code, code)
    return UNITS.get(code)


def _same_kind(code: str, other: str) -> bool:
    first, second = _unit(code), _unit(other)
    return first is not None and second is not None and first.kind == second.kind and first.scale < second.scale


def _outputs(arguments: list[str]) -> tuple[str, int | None]:
    """The unit to convert to (or nothing), and the number of decimals that is asked for (or none)."""
    target, digits = "", None
    for number, argument in enumerate(arguments):
        if re.fullmatch(r"[-−]?\d+", argument):
            digits = int(argument.replace("−", "-"))
        elif number == 0 and not argument.startswith("-"):
            target = argument
    return target, digits


def _default(parts: list, code: str) -> str:
    if len(parts) > 1:
        return {"ft": "m", "lb": "kg", "st": "kg", "mi": "km", "yd": "m"}.get(ALIASES.get(code, code), "")
    unit = _unit(code)
    if unit is None:
        scaled = _SCALED.match(code)
        inner = _unit(scaled[2]) if scaled else None
        return f"{scaled[1]}{inner.default}" if inner is not None and inner.default else ""
    return unit.default(parts[0][0][-1].value) if callable(unit.default) else unit.default


def _composed(parts: list, style: _Style) -> str:
    return " ".join(_written(amounts, [], unit, style.input_symbol, style, False) for amounts, unit in parts)


def _written(amounts: list[_Amount], betweens: list[str], code: str, symbol: bool, style: _Style, is_input: bool) -> str:
    scaled = _SCALED.match(code)
    word = power_word(scaled[1]) if scaled else None
    unit = _unit(scaled[2] if word else code)
    number = amounts[0].text
    if unit is not None and unit.kind.startswith("temperature") and not style.is_spelt_out:
        symbol = True
    # The symbol of some units is a word (acres); it is hyphenated, too.
    adjective = style.is_adjective and (is_input and not symbol or unit is not None and unit.symbol == unit.plural)
    separate = bool(betweens) and betweens[0] in _PER_SIDE and symbol
    name = code if unit is None else unit.symbol
    for between, amount in zip(betweens, amounts[1:]):
        spaced = _BETWEEN[between][1 if symbol else 0]
        if separate:
            number += f" {name}"
        number += spaced + amount.text
    if word:
        number += f" {word}"
    if unit is not None and (not symbol or unit.symbol == unit.plural):
        singular = adjective or (abs(amounts[-1].value) == 1 and not word)
        name = unit.singular if singular else unit.plural
        if style.is_us:
            name = _US_SPELLING.sub(r"\1er", name)
    if adjective:
        return f"{number}-{name.replace(' ', '-')}{style.middle}".rstrip("-") + (f" {style.follows}" if style.follows else "")
    return f"{number}{'' if name.startswith('/') else ' '}{name}"


def _converted(parts: list, betweens: list[str], target: str, digits: int | None, style: _Style) -> str:
    """What stands in the parentheses; empty where a unit is not known."""
    if target in COMPOSED:
        return _composed_output(parts, COMPOSED[target], digits, style)
    codes = [target] if _known(target) else target.split()
    written = []
    for code in codes:
        if not _known(code) or not all(_convertible(unit, code) for _, unit in parts):
            continue
        values = [_rescaled(parts, amount, code, digits, style) for amount in parts[0][0]]
        decimals = max(value.decimals for value in values)  # both ends of a range are rounded alike
        amounts = [_rounded(value.value, value.decimals if style.sigfig else decimals, style) for value in values]
        written.append(_written(amounts, betweens, code, style.output_symbol, style, False))
    return "; ".join(written)


def _known(code: str) -> bool:
    return _split(code)[1] is not None


def _split(code: str) -> tuple[float, Unit | None]:
    scaled = _SCALED.match(code)
    if scaled and power_word(scaled[1]):
        return 10.0 ** int(scaled[1][1:]), _unit(scaled[2])
    return 1.0, _unit(code)


def _convertible(code: str, other: str) -> bool:
    unit, target = _split(code)[1], _split(other)[1]
    return unit is not None and target is not None and unit.kind == target.kind and unit is not target


def _rescaled(parts: list, amount: _Amount, code: str, digits: int | None, style: _Style) -> _Amount:
    """The exact value in another unit, and the decimals to round it to."""
    total = _in_base(amount, parts[0][1]) + sum(_in_base(more[0], unit) for more, unit in parts[1:])
    scale, unit = _split(code)
    value = (total / unit.scale + unit.offset) / scale
    last = parts[-1]
    given = (
        amount
        if len(parts) == 1
        else last[0][0]._replace(value=total / _split(last[1])[1].scale, decimals=max(0, last[0][0].decimals))
    )
    return _Amount("", value, _decimals(given, value, digits, style, total if unit.kind == "temperature" else None))


def _in_base(amount: _Amount, code: str) -> float:
    scale, unit = _split(code)
    return (amount.value * scale - unit.offset) * unit.scale


def _decimals(amount: _Amount, value: float, digits: int | None, style: _Style, kelvin: float | None) -> int:
    """How many decimals the converted value gets: about the precision of the given one, and two digits at least."""
    if style.sigfig.isdecimal() and value:
        decimals = int(style.sigfig) - 1 - math.floor(math.log10(abs(value)))
        return decimals - (round(abs(value), decimals) >= 10 ** (int(style.sigfig) - decimals))  # 0.98 becomes 1, not 1.0
    if digits is not None:
        return digits
    precision = amount.decimals
    if kelvin is not None:
        least = 2 - math.floor(math.log10(abs(kelvin))) if abs(kelvin) > 1e-8 else 2
        return max(precision, least)
    if amount.value == 0 or value == 0:
        return 0
    adjusted = precision + math.log10(abs(amount.value / value)) + math.log10(2)
    return max(math.floor(adjusted), 1 - math.floor(math.log10(abs(value)) + 1e-14))


def _rounded(value: float, decimals: int, style: _Style) -> _Amount:
    if style.round.isdecimal():
        step = int(style.round)
        value, decimals = round(value / step) * step, 0
    scaled = math.floor(abs(value) * 10.0**decimals + 0.5 + 1e-9) / 10.0**decimals
    text = grouped(f"{scaled:.{max(0, decimals)}f}")
    return _Amount(("−" if value < 0 and scaled else "") + text, -scaled if value < 0 else scaled, decimals)


def _composed_output(parts: list, codes: tuple[str, str], digits: int | None, style: _Style) -> str:
    large, small = (_unit(code) for code in codes)
    amounts = parts[0][0]
    if len(amounts) != 1 or not all(_convertible(unit, codes[0]) or unit in codes for _, unit in parts):
        return ""
    total = sum(_in_base(more[0], unit) for more, unit in parts)
    per = round(large.scale / small.scale)
    count = math.floor(total / small.scale * 10 ** (digits or 0) + 0.5) / 10 ** (digits or 0)
    whole, rest = divmod(count, per)
    names = (large.symbol, small.symbol) if style.output_symbol else (large.plural, small.plural)
    rest_text = f"{rest:.{digits or 0}f}"
    return f"{grouped(str(int(whole)))} {names[0]} {rest_text} {names[1]}" if rest else f"{grouped(str(int(whole)))} {names[0]}"
