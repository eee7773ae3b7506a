"""Wikipedia: the articles of an XML dump (pages-articles), one document an article.

As BERT's authors did, only running text is kept: no headings, lists, tables, footnotes, captions and templates, and no
sections that are lists by nature (references, external links).
"""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from robustbert.data.text.byte_streams import DAMAGE, InputFile, import_for
from robustbert.data.text.records import BadInput, LeftOut, Reader, ReaderOptions, Record

_READ_BYTES = 1 << 16
_ARTICLES = "0"  # the namespace's number

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_NOT_PROSE = "ref|references|math|chem|gallery|timeline|score|syntaxhighlight|source|imagemap|table|pre|graph|mapframe"
_EMPTY_ELEMENT = re.compile(rf"<(?:{_NOT_PROSE})\b[^<>]*/>", re.IGNORECASE)
_ELEMENT = re.compile(rf"<({_NOT_PROSE})\b[^<>]*>.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_BRACES = re.compile(r"\{\{|\}\}|^[ :*#]*\{\||^[ ]*\|\}(?!\})", re.MULTILINE)
_HEADING = re.compile(r"^(={1,6})\s*(.*?)\s*\1\s*$")
_WITHOUT_PROSE = frozenset(
    "references,notes,footnotes,citations,sources,bibliography,further reading,external links,see also,works cited,"
    "notes and references,references and notes,gallery,discography,filmography".split(",")
)
_LIST = tuple("*#;:|!")
_MAGIC_WORD = re.compile(r"__[A-Z]+__")
_QUOTES = re.compile(r"'{2,}")
_LEFT_BY_TEMPLATES = re.compile(r"[ \t]*\([\s,;:]*\)")
_BLANK_AFTER_OPENING = re.compile(r"\((?:[ \t]*[,;:])*[ \t]+")
_BLANK_BEFORE_POINT = re.compile(r"[ \t]+(?=[,.;:)](?:\s|$))")
_BLANKS = re.compile(r"[ \t\xa0]+")
# `[[fr:Chat]]` is a link to another language's article; `[[:fr:Chat]]` is text.
_OTHER_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[a-z-]+)?:")
_MEDIA_OR_CATEGORY = ("file:", "image:", "category:", "media:")


def records(file: InputFile, options: ReaderOptions, piece_chars: int) -> Iterator[Record | BadInput | LeftOut]:
    """The wikitext of every article of a dump, streamed; redirects and other namespaces are left out."""
    parser = ElementTree.XMLPullParser(events=("start", "end"))
    title, root = None, None
    try:
        while content := file.read(_READ_BYTES):
            parser.feed(content)
            for event, element in parser.read_events():
                if root is None:
                    root = element
                if event == "end" and _name(element) == "page":
                    values = {_name(child): child for child in element.iter()}
                    title = values["title"].text if "title" in values else None
                    yield _article(values, f"{file.path}: page {title!r}")
                    root.clear()
        parser.close()
    except ElementTree.ParseError as error:
        where = f"line {error.position[0]}, column {error.position[1]}"
        after = f", after page {title!r}" if title is not None else ""
        what = str(error).partition(":")[0]
        yield BadInput(f"{file.path}: {where}: damaged or cut-off XML ({what}){after}; copy or download it again")
    except DAMAGE as error:
        yield BadInput(f"{file.damage(error)}; it went well up to page {title!r}")


def extract(record: Record, options: ReaderOptions) -> str | LeftOut | BadInput:
    """The running text of an article."""
    parser_error = import_for("mwparserfromhell.parser", "a Wikipedia dump").ParserError
    try:
        text = running_text(record.content)
    except (parser_error, RecursionError) as error:
        return BadInput(f"{record.place}: its markup cannot be parsed ({error}); drop the page")
    return text or LeftOut("articles without running text")


def running_text(wikitext: str) -> str:
    """The paragraphs of an article's wikitext, with a blank line between them.

    Comments, footnotes, templates and tables are cut out before the parser sees them: that is most of the markup, and the
    parser takes ten times as long for it.
    """
    text = _ELEMENT.sub("", _EMPTY_ELEMENT.sub("", _COMMENT.sub("", wikitext)))
    text = _without_sections(_without_braces(text).split("\n"))
    parsed = import_for("mwparserfromhell", "a Wikipedia dump").parse(text, skip_style_tags=True)
    text = _QUOTES.sub("", "".join(map(_plain, parsed.nodes)))
    text = _LEFT_BY_TEMPLATES.sub("", _MAGIC_WORD.sub("", text))
    text = _BLANK_BEFORE_POINT.sub("", _BLANK_AFTER_OPENING.sub("(", _BLANKS.sub(" ", text)))
    paragraphs = (" ".join(line.strip() for line in part.split("\n")).strip() for part in re.split(r"\n\s*\n", text))
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def _article(values: dict, place: str) -> Record | LeftOut | BadInput:
    text = values["text"].text if "text" in values else None
    if "ns" in values and values["ns"].text != _ARTICLES:
        return LeftOut("pages that are no articles")
    if "redirect" in values or (text or "").lstrip()[:9].upper() == "#REDIRECT":
        return LeftOut("redirects")
    return Record(text, place) if text else LeftOut("articles without running text")


def _name(element) -> str:
    return element.tag.rpartition("}")[2]  # without the dump's version


def _without_braces(text: str) -> str:
    """The text outside of templates and tables; what is opened and never closed stays, but for its braces."""
    kept, opened, at = [], [], 0
    for match in _BRACES.finditer(text):
        mark = match[0].strip(" :*#")
        if mark in ("{{", "{|"):
            opened.append((mark, match.start(), len(kept)))
            kept.append(text[at : match.start()])
        else:
            opening = "{{" if mark == "}}" else "{|"
            if not any(entry[0] == opening for entry in opened):
                kept.append(text[at : match.start()])
            else:
                while True:
                    found, _, length = opened.pop()
                    if found == opening:
                        break
                kept[length + 1 :] = []
        at = match.end()
    kept.append(text[at:])
    return "".join(kept)


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


def _plain(node) -> str:
    kind = type(node).__name__
    if kind == "Text":
        return node.value
    if kind == "Wikilink":
        title = str(node.title).strip()
        lowered = title.lower()
        if lowered.startswith(_MEDIA_OR_CATEGORY) or _OTHER_LANGUAGE.match(title):
            return ""
        return _plain_code(node.text) if node.text is not None else title.removeprefix(":")
    if kind == "ExternalLink":
        if not node.brackets:
            return str(node.url)
        return _plain_code(node.title) if node.title is not None else ""
    if kind == "HTMLEntity":
        try:
            return node.normalize()
        except (ValueError, OverflowError):
            return ""
    if kind == "Tag":
        if str(node.tag).strip().lower() == "br":
            return "\n"
        return _plain_code(node.contents) if node.contents is not None else ""
    return ""


def _plain_code(code) -> str:
    return "".join(map(_plain, code.nodes))


READER = Reader(records, extract, (".xml",))
