"""Numbers in templates: {{formatnum:}}, {{val}}, fractions, ordinals, amounts of money."""

import re

from robustbert.data.text.wikitext.braces import Call
from robustbert.data.text.wikitext.marks import SUPERSCRIPT

_NUMBER = re.compile(r"([-−+]?)(\d+)(\.\d+)?(?:[eE]([-+−]?\d+))?\Z")
# How the wikis in other languages write 1,234.5: what parts thousands, and the decimal mark.
_SEPARATORS = {
    **dict.fromkeys(("de", "da", "nl", "id", "tr", "el", "ro", "sl", "hr", "vi", "gl", "ca", "eu"), (".", ",")),
    **dict.fromkeys(("es", "it", "pt"), (".", ",")),
    **dict.fromkeys(
        ("fr", "ru", "uk", "pl", "cs", "sk", "sv", "no", "nb", "nn", "fi", "bg", "hu", "et", "lv", "lt"), ("\u00a0", ",")
    ),
}
_PREFIXES = {"k": "thousand", "e3": "thousand", "e6": "million", "e9": "billion", "e12": "trillion"}
_CURRENCIES = {
    **dict.fromkeys(("usd", "us$", "us dollar", "$"), "US$"),
    **dict.fromkeys(("gbp", "£", "pound sterling", "pounds", "gb£"), "£"),
    **dict.fromkeys(("eur", "€", "euro"), "€"),
    **dict.fromkeys(("jpy", "¥", "yen", "jpy¥"), "¥"),
    **dict.fromkeys(("cny", "cn¥", "rmb"), "CN¥"),
    **dict.fromkeys(("inr", "₹", "indian rupee", "indian rupees", "inrconvert", "rupee"), "₹"),
    **dict.fromkeys(("aud", "a$", "au$"), "A$"),
    **dict.fromkeys(("cad", "c$", "ca$", "can$"), "C$"),
    **dict.fromkeys(("nzd", "nz$"), "NZ$"),
    **dict.fromkeys(("hkd", "hk$"), "HK$"),
    **dict.fromkeys(("sgd", "s$"), "S$"),
    **dict.fromkeys(("php", "₱", "philippine peso"), "₱"),
    **dict.fromkeys(("krw", "₩", "south korean won"), "₩"),
    **dict.fromkeys(("ils", "₪"), "₪"),
    **dict.fromkeys(("rub", "₽"), "₽"),
    **dict.fromkeys(("ngn", "₦"), "₦"),
    **dict.fromkeys(("brl", "r$"), "R$"),
    **dict.fromkeys(("chf",), "CHF "),
}


def grouped(number: str, language: str = "en") -> str:
    """A number's digits in groups of three, as the wiki's language writes them; what is no number stays."""
    match = _NUMBER.match(number.strip().replace(",", ""))
    if match is None or match[4]:
        return number
    thousands, point = _SEPARATORS.get(language, (",", "."))
    whole = f"{int(match[2]):,}".replace(",", thousands) if match[2][0] != "0" else match[2]
    return match[1] + whole + (match[3] or "").replace(".", point)


def format_number(value: str, arguments: list[str], language: str) -> str:
    """{{formatnum:VALUE|R}}: with R the other way round, with NOSEP without groups."""
    options = {argument.strip().upper() for argument in arguments}
    if "R" in options:
        thousands, point = _SEPARATORS.get(language, (",", "."))
        return value.replace(thousands, "").replace(point, ".")
    return value if "NOSEP" in options else grouped(value, language)


def val(call: Call, language: str) -> str | None:
    """{{val|1.23|0.05|e=6|u=m/s}}: a value with its uncertainty, power of ten and unit."""
    value = call.argument(1)
    if not value:
        return None
    text = grouped(value, language)
    upper, lower = call.argument(2), call.argument(3)
    if upper.startswith("(") or "(" in value:
        text += upper
    elif lower:
        text += f" +{upper.lstrip('+')} −{lower.lstrip('-−')}"
    elif upper:
        text += f"±{grouped(upper, language)}"
    if exponent := call.named.get("e"):
        text += f"×10{SUPERSCRIPT}{exponent}"
    unit = call.named.get("u") or call.named.get("ul") or call.named.get("end") or ""
    per = call.named.get("up") or call.named.get("upl") or ""
    unit = f"{unit}/{per}" if per else unit
    return f"{call.named.get('p', '')}{text}{'' if unit.startswith(('%', '°')) else ' '}{unit}".rstrip()


def fraction(call: Call, _language: str) -> str | None:
    """{{frac|1|2}} is 1/2, {{frac|3|1|2}} is 3 1/2, {{frac|3}} is 1/3."""
    numbers = [number for number in call.positional if number]
    if len(numbers) == 1:
        return f"1/{numbers[0]}"
    if len(numbers) == 2:
        return "/".join(numbers)
    return f"{numbers[0]} {numbers[1]}/{numbers[2]}" if len(numbers) == 3 else None


def ordinal(call: Call, _language: str) -> str | None:
    """{{ordinal|22}} is 22nd."""
    number = call.argument(1).replace(",", "")
    if not number.isdecimal():
        return None
    teen = number[-2:] in ("11", "12", "13")
    return call.argument(1) + ("th" if teen else {"1": "st", "2": "nd", "3": "rd"}.get(number[-1], "th"))


def power_of_ten(call: Call, _language: str) -> str:
    """{{e|6}} is ×10^6."""
    return f"×10{SUPERSCRIPT}{call.argument(1)}"


def power(call: Call, _language: str) -> str:
    """{{pow|10|6}} is 10^6."""
    return f"{call.argument(1)}{SUPERSCRIPT}{call.argument(2)}"


def percentage(call: Call, _language: str) -> str | None:
    """{{percentage|1|4}} is 25%; a third argument is the number of decimals."""
    try:
        part, whole = (float(call.argument(number).replace(",", "")) for number in (1, 2))
        return f"{100 * part / whole:.{int(call.argument(3) or 0)}f}%"
    except (ValueError, ZeroDivisionError):
        return None


def currency_symbol(name: str) -> str | None:
    """What stands in front of an amount in {{USD|...}}, {{€|...}}, {{INR|...}}."""
    return _CURRENCIES.get(name)


def amount(call: Call, language: str) -> str | None:
    """{{currency|10|USD}} and {{price|10|USD}}."""
    code = call.argument(2).lower() or "usd"
    return _CURRENCIES.get(code, f"{code.upper()} ") + grouped(call.argument(1), language) if call.argument(1) else None


def power_word(prefix: str) -> str | None:
    """`million` for e6."""
    return _PREFIXES.get(prefix)
