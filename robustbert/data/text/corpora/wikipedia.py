"""Wikipedia: the articles of an XML dump (pages-articles), one document an article.

As BERT's authors did, only running text is kept: no headings, lists, tables, footnotes and captions, and no sections that
are lists by nature (references, external links). Templates that stand for words within a sentence give them
(wikitext/templates.py); the sentences that lack the words of others are counted.
"""

from collections.abc import Iterator
from xml.etree import ElementTree

from robustbert.data.text.byte_streams import DAMAGE, InputFile, import_for
from robustbert.data.text.records import BadInput, Incomplete, Lacking, LeftOut, Reader, ReaderOptions, Record
from robustbert.data.text.wikitext.articles import Site, article_text, is_redirect
from robustbert.data.text.wikitext.namespaces import LEAVING_NO_TEXT
from robustbert.data.text.wikitext.no_words import is_disambiguation

_READ_BYTES = 1 << 16
_ARTICLES = "0"  # the namespace's number
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


def records(file: InputFile, options: ReaderOptions, piece_chars: int) -> Iterator[Record | BadInput | LeftOut]:
    """The title and the wikitext of every article of a dump, streamed; redirects and other namespaces are left out.

    A record's first line is the title; its kind is what the dump says of its wiki.
    """
    parser = ElementTree.XMLPullParser(events=("start", "end"))
    title, root, site = None, None, Site()
    try:
        while content := file.read(_READ_BYTES):
            parser.feed(content)
            for event, element in parser.read_events():
                if root is None:
                    root = element
                    site = site._replace(language=root.get(_LANGUAGE, "en"))
                if event == "end" and _name(element) == "namespaces":
                    names = (child.text for child in element if child.get("key") in LEAVING_NO_TEXT)
                    site = site._replace(namespaces=tuple(name for name in names if name))
                if event == "end" and _name(element) == "page":
                    values = {_name(child): child for child in element.iter()}
                    title = values["title"].text if "title" in values else None
                    yield _article(values, title or "", f"{file.path}: page {title!r}", site)
                    root.clear()
        parser.close()
    except ElementTree.ParseError as error:
        where = f"line {error.position[0]}, column {error.position[1]}"
        after = f", after page {title!r}" if title is not None else ""
        what = str(error).partition(":")[0]
        yield BadInput(f"{file.path}: {where}: damaged or cut-off XML ({what}){after}; copy or download it again")
    except DAMAGE as error:
        yield BadInput(f"{file.damage(error)}; it went well up to page {title!r}")


def extract(record: Record, options: ReaderOptions) -> str | Incomplete | LeftOut | BadInput:
    """The running text of an article."""
    parser_error = import_for("mwparserfromhell.parser", "a Wikipedia dump").ParserError
    title, _, wikitext = record.content.partition("\n")
    if is_disambiguation(wikitext):
        return LeftOut("disambiguation pages")
    try:
        text, num_lacking, names = article_text(wikitext, title, Site.parse(record.kind))
    except (parser_error, RecursionError) as error:
        return BadInput(f"{record.place}: its markup cannot be parsed ({error}); drop the page")
    if not text:
        return LeftOut("articles without running text")
    return Incomplete(text, Lacking(num_lacking, tuple(names))) if num_lacking else text


def running_text(wikitext: str) -> str:
    """The paragraphs of an article's wikitext, with a blank line between them."""
    return article_text(wikitext).text


def _article(values: dict, title: str, place: str, site: Site) -> Record | LeftOut | BadInput:
    text = values["text"].text if "text" in values else None
    if "ns" in values and values["ns"].text != _ARTICLES:
        return LeftOut("pages that are no articles")
    if "redirect" in values or is_redirect(text or ""):
        return LeftOut("redirects")
    return Record(f"{title}\n{text}", place, kind=str(site)) if text else LeftOut("articles without running text")


def _name(element) -> str:
    return element.tag.rpartition("}")[2]  # without the dump's version


READER = Reader(records, extract, (".xml",))
