"""The running text of one article: what is no prose is cut out, templates are expanded, links and tags give their text."""

import html
import re
import unicodedata
from functools import cache
from typing import NamedTuple

from robustbert.data.text.byte_streams import import_for
from robustbert.data.text.wikitext.apostrophes import without_quotes
from robustbert.data.text.wikitext.braces import expand
from robustbert.data.text.wikitext.marks import (
    AFTER_SUBSCRIPT,
    NOTHING,
    SUPERSCRIPT,
    as_data,
    missing,
    restored,
    take_missing,
    without_marks,
)
from robustbert.data.text.wikitext.namespaces import leaving_no_text, normal
from robustbert.data.text.wikitext.templates import render

_NO_WIKI = re.compile(r"<nowiki\s*/>|<nowiki\b[^<>]*>(.*?)</nowiki\s*>", re.IGNORECASE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_NOT_PROSE = (
    "ref|references|gallery|timeline|score|syntaxhighlight|source|imagemap|pre|graph|mapframe|maplink|includeonly|"
    "templatestyles|section|categorytree|inputbox|hiero|templatedata|indicator"
)
_EMPTY_ELEMENT = re.compile(rf"<(?:{_NOT_PROSE}|math|chem|ce)\b[^<>]*/>", re.IGNORECASE)
_ELEMENT = re.compile(rf"<({_NOT_PROSE})\b([^<>]*)>(.*?)</\1\s*>", re.IGNORECASE | re.DOTALL)
_FORMULA = re.compile(r"<(math|chem|ce)\b[^<>]*>(.*?)</\1\s*>", re.IGNORECASE | re.DOTALL)
# Lists and tables in HTML, the innermost first.
_BLOCK = re.compile(r"<(table|ul|ol|dl)\b[^<>]*>(?:(?!<\1\b).)*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_PARAGRAPH_TAGS = ("blockquote", "p", "poem", "div", "center")
# -{zh-hans:计算机; zh-hant:電腦}- in wikis that are written in several ways.
_VARIANTS = re.compile(r"-\{(?:[A-Z;]*\|)?(?:[a-z-]+:)?([^{}|;]*)[^{}]*\}-")
_STRAY_TAG = re.compile(r"</?(?:ref|references|onlyinclude|noinclude|section)\b[^<>]*>", re.IGNORECASE)
# What the parser takes for text: a tag that nothing closes, tags that overlap.
_UNPAIRED_TAG = re.compile(
    r"</?(?:span|div|small|big|su[bp]|s|strike|del|ins|[biu]|em|strong|center|font|br|hr|p|code|tt|cite|abbr|blockquote|poem|li|ul|ol|"
    r"t[dhr]|table|includeonly)\b[^<>]*>",
    re.IGNORECASE,
)
_ENTITY = re.compile(r"&[A-Za-z][A-Za-z0-9]*;")  # of HTML 5; the parser knows those of HTML 4
_PLAIN_FORMULA = re.compile(r"[A-Za-z0-9 +\-=<>,.()/!]{1,24}")
_GREEK = re.compile(r"\\([A-Za-z]+)")
_HEADING = re.compile(r"^(={1,6})\s*(.*?)\s*\1\s*$")
_WITHOUT_PROSE = frozenset(
    "references,notes,footnotes,citations,sources,bibliography,further reading,external links,see also,works cited,"
    "notes and references,references and notes,gallery,discography,filmography".split(",")
)
_LIST = tuple("*#;:|!")
_MAGIC_WORD = re.compile(r"__[^\W\d_a-z]+(?:_[^\W\d_a-z]+)*__")
_LEFT_BY_TEMPLATES = re.compile(r"[ \t]*\([\s,;:]*\)")
_BLANK_AFTER_OPENING = re.compile(r"\((?:[ \t]*[,;:])*[ \t]+")
_BLANK_BEFORE_POINT = re.compile(r"[ \t]+(?=[,.;:)](?:\s|$))")
_BLANKS = re.compile(r"[ \t\xa0]+")
# `[[fr:Chat]]` is a link to another language's article; `[[:fr:Chat]]` is text, and so are links to some catalogues.
_OTHER_LANGUAGE = re.compile(r"(?!doi:|rfc:|hdl:|pmc:)[a-z]{2,3}(?:-[a-z-]+)?:")
_REDIRECT = re.compile(r"\s*#[^\W\d_]+\s*:?\s*\[\[[^\[\]]+\]\]")


class Site(NamedTuple):
    """A wiki: its language's code, and its names of the namespaces whose links leave no text."""

    language: str = "en"
    namespaces: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "|".join([self.language, *self.namespaces])

    @classmethod
    def parse(cls, text: str) -> "Site":
        """What str() wrote; an empty text is the English Wikipedia."""
        language, *namespaces = text.split("|")
        return cls(language or "en", tuple(namespaces))


class ArticleText(NamedTuple):
    """Paragraphs with blank lines between them; how many sentences lack words, and the names of what stood for those."""

    text: str
    num_lacking: int
    missing_names: list[str]


def is_redirect(wikitext: str) -> bool:
    """Whether a page only sends to another one (#REDIRECT, #WEITERLEITUNG, ...)."""
    return _REDIRECT.match(wikitext) is not None


def article_text(wikitext: str, title: str = "", site: Site = Site()) -> ArticleText:
    """The running text of an article's wikitext.

    Comments, footnotes, templates and tables are gone before the parser sees the text: that is most of the markup, and the
    parser takes ten times as long for it.
    """
    text = _NO_WIKI.sub(lambda match: as_data(html.unescape(match[1])) if match[1] else NOTHING, without_marks(wikitext))
    text = _EMPTY_ELEMENT.sub("", _COMMENT.sub("", text))
    text = _STRAY_TAG.sub("", _FORMULA.sub(_formula, _ELEMENT.sub(_element, text)))
    while (shorter := _BLOCK.sub("\n", text)) != text:
        text = shorter
    if "-{" in text and site.language != "en":
        text = _VARIANTS.sub(r"\1", text)
    text = expand(text, lambda call: render(call, title, site.language))
    text = _without_sections(text.split("\n"))
    parsed = import_for("mwparserfromhell", "a Wikipedia dump").parse(text, skip_style_tags=True)
    text = without_quotes(_UNPAIRED_TAG.sub("", _plain_code(parsed, leaving_no_text(site.namespaces))))
    text, num_lacking, names = take_missing(_MAGIC_WORD.sub("", text))
    text = _BLANKS.sub(" ", _LEFT_BY_TEMPLATES.sub("", text))
    text = restored(_BLANK_BEFORE_POINT.sub("", _BLANK_AFTER_OPENING.sub("(", text)))
    paragraphs = (" ".join(line.strip() for line in part.split("\n")).strip() for part in re.split(r"\n\s*\n", text))
    return ArticleText("\n\n".join(paragraph for paragraph in paragraphs if paragraph), num_lacking, names)


def _element(match: re.Match) -> str:
    """Code within a sentence is words; what else is cut out leaves nothing."""
    is_code = match[1].lower() in ("syntaxhighlight", "source") and "inline" in match[2].lower()
    return as_data(match[3]) if is_code else ""


def _formula(match: re.Match) -> str:
    """A formula that is a name or a simple term is its own text; the words of any other are missing."""
    formula = match[2].strip()
    if _PLAIN_FORMULA.fullmatch(formula):
        return as_data(formula)
    return _greek_letter(formula) or missing(f"<{match[1].lower()}>")


@cache
def _greek_letter(formula: str) -> str:
    match = _GREEK.fullmatch(formula)
    if match is None:
        return ""
    case = "CAPITAL" if match[1][0].isupper() else "SMALL"
    try:
        return unicodedata.lookup(f"GREEK {case} LETTER {match[1].upper().replace('LAMBDA', 'LAMDA')}")
    except KeyError:
        return ""


def _without_sections(lines: list[str]) -> str:
    """The lines without headings, lists, and the sections that hold no prose (with the sections below them)."""
    kept, skipped_level = [], None
    for line in lines:
        heading = _HEADING.match(line)
        if heading:
            level = len(heading[1])
            if skipped_level is None or level <= skipped_level:
                skipped_level = level if heading[2].strip("' ").lower() in _WITHOUT_PROSE else None
            kept += ["", ""]
        elif skipped_level is None:
            kept.append("" if line.startswith(_LIST) else line)
    return "\n".join(kept)


def _plain(node, no_text: frozenset[str]) -> str:
    kind = type(node).__name__
    if kind == "Text":
        return _ENTITY.sub(lambda match: as_data(html.unescape(match[0])), node.value)
    if kind == "Wikilink":
        return _link(node, no_text)
    if kind == "ExternalLink":
        if not node.brackets:
            return str(node.url)
        return _plain_code(node.title, no_text) if node.title is not None else ""
    if kind == "HTMLEntity":
        try:
            return as_data(node.normalize())
        except (ValueError, OverflowError):
            return ""
    if kind == "Tag":
        tag = str(node.tag).strip().lower()
        if tag == "br":
            return "\n"
        text = _plain_code(node.contents, no_text) if node.contents is not None else ""
        if tag in _PARAGRAPH_TAGS:
            return f"\n\n{text}\n\n"
        return SUPERSCRIPT + text if tag == "sup" else text + AFTER_SUBSCRIPT if tag == "sub" else text
    return ""


def _link(node, no_text: frozenset[str]) -> str:
    title = str(node.title).strip()
    prefix, colon, _ = title.partition(":")
    if colon and normal(prefix) in no_text or _OTHER_LANGUAGE.match(title):
        return ""
    if node.text is not None:
        return _plain_code(node.text, no_text)
    return as_data(_plain_code(node.title, no_text).strip().removeprefix(":"))


def _plain_code(code, no_text: frozenset[str]) -> str:
    return "".join(_plain(node, no_text) for node in code.nodes)
