"""Templates that stand for words: text in another style or language, names, pronunciations, signs."""

import re

from robustbert.data.text.wikitext.braces import Call
from robustbert.data.text.wikitext.languages import language_name
from robustbert.data.text.wikitext.marks import AFTER_SUBSCRIPT, SUPERSCRIPT, as_data

_SIGNS = {
    "nbsp": "\u00a0", "spaces": " ", "space": " ", "sp": " ", "thinsp": " ", "thin space": " ", "hair space": "", "zwsp": "",
    "0ws": "", "ndash": "–", "en dash": "–", "mdash": "—", "emdash": "—", "endash": "–", "em dash": "—", "snd": " – ",
    "snds": " – ", "spnd": " – ", "spaced ndash": " – ", "spaced en dash": " – ", "dash": " – ", "spaced endash": " – ",
    "mdashb": " — ", "spaced em dash": " — ", "·": " · ", "•": " • ", "bull": " • ", "dot": " · ", "middot": " · ",
    "bullet": " • ", "\\": " / ", "!": "|", "pipe": "|", "=": "=", "'": "'", "\"": '"', "' \"": "' \"", "\" '": "\" '",
    "'\"": "'\"", "\"'": "\"'", "-\"": '"', "-'": "'", "'-": "'", "'s": "'s", "`s": "'s", "apostrophe": "'", "`": "'",
    "pi": "π", "tau": "τ", "times": "×", "minus": "−", "plus-minus": "±", "±": "±", "degree": "°", "infin": "∞",
    "euro sign": "€", "okina": "ʻ", "hamza": "ʼ", "ayin": "ʿ", "ce": "CE", "bce": "BCE", "ad": "AD", "bc": "BC", "bp": "BP",
    "dagger": "†", "double-dagger": "‡", "dag": "†", "ell": "…", "...": "…", "nbhyph": "-", "nbh": "-", "(": "{", ")": "}",
    "((": "{{", "))": "}}", "(!": "", "!)": "", "!!": "", "!-": "", "!+": "", "·wrap": " · ", "number sign": "#",
    "section sign": "§", "hyphen": "-", "lsquo": "‘", "rsquo": "’", "ampersand": "&", "asterisk": "*", "colon": ":",
    "semicolon": ";", "trade": "™", "reg": "®", "copyright": "©", "music note": "♪", "checked box": "☑", "eqm": " ",
}  # fmt: skip
_FIRST = frozenset(
    """nowrap nobr nobreak nowraplinks no_wrap nwr small smaller smallsup smalldiv big bigger larger large huge mvar math var
    em strong abbr tooltip sc smallcaps small_caps smcaps sc2 smallcaps2 smcp allcaps caps vanchor visible_anchor
    noitalic noital nobold nobold2 normal noitalics midsize center centre code mono samp kbd tt pre2 proper_name
    citation_needed_span cnspan clarify_span cn-span grc polytonic hebrew unicode hebr heb script transl2 lang2
    asiantitle format_price formatprice overline underline u overset under ul i b strikethrough s strike del ins
    highlight tq tqi talkquote xt !xt mxt block_indent blockindent indent nihongo2 jp transl-ja wikt ill-wd
    wikidata_entity interlanguage_link ill interlanguage_link_multi link-interwiki iw iw2 red-link redlink illm ill-wd2
    flag flagu flagg flaglist flagcountry country_flag link noredirect no_redirect redlink_title pronunciation2
    plain_link nocat disp title_case sentence_case mathcal mathbf mathrm bigmath textdiv align left right align_left
    align_right float_left nowrap2 avoid_wrap nobreaks not_a_link notatypo dead_link_span font_family serif sans-serif
    greek gk thai arab arabic persian naskh nastaliq script/arabic script/hebrew script/nastaliq script/hebr
    script/cyrillic script/coptic script/gothic script/runic cuneiform hiero2 runic official name bdo no_bold bold
    italic italics text stylized raised lower raise super bigdiv large_text mul username smallcaps_all term dfn
    cite_quote quote-inline qi nowiki_text uninternalize plaintext""".split()
)  # fmt: skip
_SECOND = frozenset(
    """lang wikt-lang native_name native_phrase rtl-lang script/1 color colour font_color colored coloured font fontcolor
    resize bg background_color hilite font_size fsp lang-rtl langr text_color noredlink fontsize lang-sub color_text
    sort""".split()
)  # fmt: skip
_JOINED = frozenset("sic typo not_a_typo as_written notatypo chem ce chem2 linktext chemf".split())
_NAVY = frozenset(
    """uss usns uscgc usat usrc usc&gs noaas hms hmas hmcs hmnzs hmnb hmis hmsas hmt hmy hmbs hdms hnlms hswms hnoms rms ss ms
    mv mt ps ts rv sy my gts tss rfa rnlb rmas rrs qsmv css csa ins iss irns sms smu sm ijn ara aan bap bns brp chl kri
    kd rss tcg rov ros rfs orp esps bae fgs his fs frs hellenic hs le pns lÉ ran hmpngs rm sas sts kv nrp htms umc""".split()
)  # fmt: skip
_IDENTIFIERS = {
    "isbn": "ISBN", "issn": "ISSN", "oclc": "OCLC", "doi": "doi:", "pmid": "PMID", "arxiv": "arXiv:", "lccn": "LCCN",
    "hdl": "hdl:", "jstor": "JSTOR", "bibcode": "Bibcode:", "rfc": "RFC", "cve": "CVE-", "iau": "",
}  # fmt: skip
_NOT_SOUNDS = frozenset("lang local uk us usalso also pron ipa label en small yes no".split())
_ACCIDENTALS = {"flat": "♭", "b": "♭", "sharp": "♯", "#": "♯", "natural": "♮", "doubleflat": "𝄫", "doublesharp": "𝄪"}


def words(call: Call, name: str, language: str) -> str | None:
    """The words of a template (its name in lower case); None where it is none of these."""
    key = name.replace(" ", "_")
    if name in _SIGNS:
        return _sign(call, name)
    if key in _FIRST or name.startswith("script/"):
        return call.named.get("lt") or call.argument(2 if name.startswith("script/") and call.argument(2) else 1) or None
    if key in _SECOND:
        return call.argument(2) or call.argument(1) or None
    if key in _JOINED:
        joined = (" " if key == "linktext" else "").join(part for part in call.positional if part)
        return joined or (as_data("[sic]") if key == "sic" else None)
    if name in _NAVY:
        return _ship(name.upper(), call.argument(1), call.argument(2), call.argument(3))
    if name in _IDENTIFIERS:
        return f"{_IDENTIFIERS[name]} {call.argument(1)}".replace(": ", ":").strip() if call.argument(1) else None
    if name in ("langx", "lang-x") or name.startswith("lang-"):
        return _in_language(call, name, language)
    if name.startswith("ipa"):
        return _pronunciation(call, name)
    function = _FUNCTIONS.get(key)
    return function(call) if function else None


def _sign(call: Call, name: str) -> str:
    if name in ("bce", "ce", "ad", "bc") and call.argument(1):
        return f"{call.argument(1)} {_SIGNS[name]}"
    return _SIGNS[name] if name in ("!", "pipe", "=") else as_data(_SIGNS[name])


def _ship(prefix: str, name: str, number: str, form: str) -> str | None:
    """A ship by its prefix, name and hull number, of which forms 2 and 6 show no number, 3 and 5 no name, 4 none of both."""
    if not name:
        return None
    if form == "1":
        return f"{name} ({number})" if number else name
    if form in ("2",):
        return name
    if form == "3":
        return f"{prefix} ({number})" if number else name
    if form in ("4", "5"):
        return number or name
    return f"{prefix} {name}" + (f" ({number})" if number and form != "6" else "")


def _any_ship(call: Call) -> str | None:
    return _ship(call.argument(1), call.argument(2), call.argument(3), call.argument(4))


def _ship_class(call: Call) -> str | None:
    """{{sclass|Nimitz|aircraft carrier}}: with form 0 `Nimitz-class`, 1 the class alone, 4 and 5 the type's plural."""
    name, kind, form = (call.argument(number) for number in (1, 2, 3))
    if not name:
        return None
    if form in ("1", "0") or not kind:
        return f"{name}{' class' if form == '1' else '-class'}"
    return f"{name}-class {kind}{'s' if form in ('5',) else ''}"


def _in_language(call: Call, name: str, language: str) -> str | None:
    """`Latin: felis`; with a second text `Arabic: ..., romanized: ...`, with a third `lit. '...'`."""
    code, texts = name.removeprefix("lang-"), call.positional
    if name in ("langx", "lang-x"):
        code, texts = call.argument(1), call.positional[1:]
    text = texts[0] if texts else ""
    if not text:
        return None
    label = call.named.get("label") or (language_name(code) if language == "en" else "")
    result = f"{label}: {text}" if label and label not in ("no", "none", "-") else text
    romanized = (texts[1] if len(texts) > 1 else "") or call.named.get("translit", "")
    meaning = (texts[2] if len(texts) > 2 else "") or call.named.get("translation", "") or call.named.get("lit", "")
    if romanized:
        result += f", romanized: {romanized}" if language == "en" else f", {romanized}"
    return f"{result}, lit. '{meaning}'" if meaning and language == "en" else result


def _transliteration(call: Call) -> str | None:
    return next((text for text in reversed(call.positional) if text), None)


def _pronunciation(call: Call, name: str) -> str | None:
    """{{IPAc-en|ˈ|k|æ|t}} is /ˈkæt/, {{IPA-fr|bɔ̃ʒuʁ}} and {{IPA|fr|bɔ̃ʒuʁ}} are [bɔ̃ʒuʁ]."""
    if name.startswith("ipac-"):
        sounds = [s.replace("_", " ") for s in call.positional if s.lower() not in _NOT_SOUNDS and "ogg" not in s.lower()]
        if not sounds:
            return None
        return f"/{''.join(sounds)}/" if name == "ipac-en" else f"[{''.join(sounds)}]"
    coded = name == "ipa" and len(call.positional) > 1 and re.fullmatch(r"[a-z]{2,3}(-[\w-]+)?", call.argument(1))
    text = call.argument(2 if coded else 1)
    if not text or name in ("ipa", "ipa link", "ipalink", "ipa-link", "ipablink", "ipaslink") and not coded:
        return text or None
    return text if text[0] in "[/" else as_data("[") + text + as_data("]")


def _respelling(call: Call) -> str | None:
    """{{respell|ARR|ist|ot|əl}}: ARR-ist-ot-əl."""
    return "-".join(part for part in call.positional if part).replace("-_-", " ").replace("_", " ") or None


def _with_original(call: Call) -> str | None:
    """{{nihongo|English|kanji|romaji|extra}}: English (kanji, romaji, extra)."""
    first, *others = [call.argument(number) for number in range(1, 5)]
    inside = ", ".join(other for other in others if other)
    return f"{first} ({inside})" if first and inside else first or inside or None


def _chinese(call: Call) -> str | None:
    labels = {"c": "Chinese", "t": "traditional Chinese", "s": "simplified Chinese", "p": "pinyin", "w": "Wade–Giles"}
    labels |= {"j": "Jyutping", "poj": "Pe̍h-ōe-jī", "l": "lit."}
    parts = [f"{label}: {call.named[key]}" for key, label in labels.items() if call.named.get(key)]
    return "; ".join(parts) or call.argument(1) or None


def _quotation(call: Call) -> str:
    text = call.argument(1) or call.named.get("text") or call.named.get("quote") or ""
    return f"\n\n{text}\n\n" if text else ""


def _list(call: Call) -> str | None:
    return " · ".join(item for item in call.positional if item) or None


def _keys(call: Call) -> str | None:
    return "+".join(key for key in call.positional if key) or None


def _verse(call: Call) -> str | None:
    """{{bibleverse|1|Corinthians|13:4}}: 1 Corinthians 13:4."""
    return " ".join(part for part in call.positional[:3] if part) or None


def _nuclide(call: Call) -> str | None:
    return "-".join(call.positional[:2]) if len(call.positional) >= 2 else None


def _harvard(call: Call) -> str | None:
    """{{harvtxt|Smith|Jones|2005|p=3}}: Smith and Jones (2005, p. 3); {{harvnb}} has no parentheses."""
    *names, year = [part for part in call.positional if part] or [""]
    if not names:
        return None
    authors = (
        names[0] if len(names) == 1 else f"{names[0]} et al." if len(names) > 3 else f"{', '.join(names[:-1])} and {names[-1]}"
    )
    page = f", p. {call.named['p']}" if call.named.get("p") else f", pp. {call.named['pp']}" if call.named.get("pp") else ""
    return f"{authors} {year}{page}" if call.name.strip().lower() == "harvnb" else f"{authors} ({year}{page})"


def _angle_brackets(call: Call) -> str:
    return f"⟨{call.argument(1)}⟩"


def _music(call: Call) -> str | None:
    return _ACCIDENTALS.get(call.argument(1).lower())


def _root(call: Call) -> str:
    degree = f"{SUPERSCRIPT}{call.argument(2)}" if call.argument(2) else ""
    return f"{degree}√{call.argument(1)}"


def _web_address(call: Call) -> str | None:
    return call.argument(2) or re.sub(r"^https?://(?:www\.)?", "", call.argument(1)) or None


def _absolute(call: Call) -> str:
    return f"|{call.argument(1)}|".replace("|", as_data("|"))


def _coordinates(call: Call) -> str | None:
    """{{coord|51|30|N|0|7|W}}: 51°30′N 0°7′W; nothing where only the page's head shows them."""
    if call.named.get("display", "inline") in ("title", "t"):
        return ""
    written, numbers = [], []
    for part in call.positional:
        if part in ("N", "S", "E", "W"):
            written.append("".join(f"{number}{sign}" for number, sign in zip(numbers, "°′″")) + part)
            numbers = []
        elif re.fullmatch(r"-?\d+(?:\.\d+)?", part):
            numbers.append(part)
    if len(written) == 2:
        return " ".join(written)
    if not written and len(numbers) == 2:
        sides = [("N", "S"), ("E", "W")]
        return " ".join(f"{number.lstrip('-')}°{side[number.startswith('-')]}" for number, side in zip(numbers, sides))
    return None


def _gauge(call: Call) -> str | None:
    """{{track gauge|1435mm}}: 1,435 mm."""
    match = re.fullmatch(r"([\d.]+)\s*(mm|m|in|ft)", call.argument(1))
    if match is None:
        return {"sg": "1,435 mm", "standard": "1,435 mm"}.get(call.argument(1).lower())
    return f"{int(match[1]):,} {match[2]}" if match[1].isdecimal() else f"{match[1]} {match[2]}"


def _height(call: Call) -> str | None:
    feet, inches, metres = (call.named.get(key, "") for key in ("ft", "in", "m"))
    if feet:
        return f"{feet} ft" + (f" {inches} in" if inches else "")
    return f"{metres} m" if metres else (f"{call.named['cm']} cm" if call.named.get("cm") else None)


def _number(call: Call) -> str:
    """{{no.|5}}: No. 5; {{vol.|3}} and {{p.|3}} likewise."""
    return f"{call.name.strip().rstrip('.')}. {call.argument(1)}".strip()


def _numero(call: Call) -> str:
    return f"No. {call.argument(1)}".strip()


def _raised(call: Call) -> str:
    return SUPERSCRIPT + call.argument(1)


def _lowered(call: Call) -> str:
    return call.argument(1) + AFTER_SUBSCRIPT


def _patent(call: Call) -> str:
    return f"U.S. patent {call.argument(1)}".strip()


def _marriage(call: Call) -> str | None:
    """{{marriage|NAME|1842|1865}}: NAME (1842–1865)."""
    name, *years = [call.argument(number) for number in (1, 2, 3)]
    when = "–".join(year for year in years if year)
    return f"{name} ({when})" if name and when else name or None


def _sort(call: Call) -> str | None:
    return " ".join(part for part in call.positional[:2] if part) or None


_FUNCTIONS = {
    "ship": _any_ship,
    **dict.fromkeys(("sclass", "sclass2", "sclass-", "sclass2-"), _ship_class),
    **dict.fromkeys(("transl", "transliteration", "translit", "tlit", "romanization"), _transliteration),
    **dict.fromkeys(("respell", "respelling", "pronunciation_respelling"), _respelling),
    **dict.fromkeys(("nihongo", "nihongo3", "nihongo4", "nihongo_krt", "korean"), _with_original),
    **dict.fromkeys(("zh", "zh-full"), _chinese),
    **dict.fromkeys(("quote", "blockquote", "block_quote", "bquote", "cquote", "quotation", "quotation2"), _quotation),
    **dict.fromkeys(("centered_pull_quote", "long_quote", "verse_translation", "poemquote", "poem_quote"), _quotation),
    **dict.fromkeys(("hlist", "hlist-comma", "comma_separated_entries", "cslist", "flatlist_inline"), _list),
    **dict.fromkeys(("keypress", "key_press", "key", "button"), _keys),
    **dict.fromkeys(("bibleverse", "bibleref", "bibleref2", "bibleverse-nb", "bv", "sourcetext", "qref"), _verse),
    **dict.fromkeys(("nuclide", "nuclide2", "simplenuclide", "simplenuclide2"), _nuclide),
    **dict.fromkeys(("harvtxt", "harvnb", "harvard_citation_text"), _harvard),
    **dict.fromkeys(("angbr", "angle_bracket", "angbr_ipa"), _angle_brackets),
    **dict.fromkeys(("sqrt", "radic", "root", "rad"), _root),
    **dict.fromkeys(("railgauge", "track_gauge", "gauge"), _gauge),
    **dict.fromkeys(("no.", "vol.", "p.", "pp.", "ch."), _number),
    **dict.fromkeys(("numero", "number", "no"), _numero),
    "music": _music,
    "url": _web_address,
    "abs": _absolute,
    "coord": _coordinates,
    "height": _height,
    "sortname": _sort,
    "marriage": _marriage,
    "us_patent": _patent,
    "sup": _raised,
    "sub": _lowered,
}
