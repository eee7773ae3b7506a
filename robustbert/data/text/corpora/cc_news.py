"""CC-NEWS: the English articles of Common Crawl's news archives, within a range of dates."""

from collections.abc import Iterator

from robustbert.data.errors import DataError
from robustbert.data.text.byte_streams import InputFile
from robustbert.data.text.corpora.language import is_english
from robustbert.data.text.corpora.warc import Page, page_text, pages
from robustbert.data.text.records import BadInput, LeftOut, Reader, ReaderOptions, Record

_DAY_CHARS = len("2019-02-28")


def records(file: InputFile, options: ReaderOptions, piece_chars: int) -> Iterator[Record | BadInput | LeftOut]:
    """Every page that was crawled within the dates."""
    first, last = options.first_date or "", options.last_date or "9999-12-31"
    for page in pages(file):
        if type(page) is not Page:
            yield page
        elif first <= page.time[:_DAY_CHARS] <= last:
            yield Record(page.content, page.place)
        else:
            yield LeftOut("outside the dates")


def extract(record: Record, options: ReaderOptions) -> str | LeftOut | BadInput:
    """The article, where there is one and it is in English."""
    try:
        text = page_text(record.content) if isinstance(record.content, bytes) else record.content
    except DataError:  # a library is missing
        raise
    except Exception as error:  # of any of the libraries that parse the page: it is this page that is bad
        return BadInput(f"{record.place} cannot be parsed ({type(error).__name__}: {str(error)[:200]}); drop the record")
    if not text or text.isspace():
        return LeftOut("pages without an article")
    return text if is_english(text) else LeftOut("not English")


READER = Reader(records, extract, (".warc", ".wet"))
