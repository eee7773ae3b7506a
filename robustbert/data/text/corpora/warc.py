"""Web archives: the pages of a WARC file (responses), or the texts of a WET file (conversions)."""

from collections.abc import Iterator
from typing import NamedTuple

from robustbert.data.text.byte_streams import DAMAGE, InputFile, import_for
from robustbert.data.text.records import MAX_RECORD_BYTES, BadInput

_HTML = ("text/html", "application/xhtml+xml")
_END_OF_RECORD = b"\r\n\r\n"


class Page(NamedTuple):
    """A page of an archive: HTML as bytes, or text where the archive holds text; place and ISO time of the crawl."""

    content: bytes | str
    place: str
    time: str


def pages(file: InputFile) -> Iterator[Page | BadInput]:
    """The pages that were fetched (status 200, HTML), and the texts, in order; what is neither is no document."""
    archives = import_for("warcio.archiveiterator", "a WARC file")
    load_failed = import_for("warcio.exceptions", "a WARC file").ArchiveLoadFailed
    number = 0
    try:
        for record in archives.ArchiveIterator(file):
            number += 1
            place = f"{file.path}: record {number} ({record.rec_headers.get_header('WARC-Target-URI')})"
            kind = record.rec_type
            if kind not in ("response", "conversion") or (kind == "response" and not _is_html(record)):
                continue
            content = record.content_stream().read(MAX_RECORD_BYTES + 1)
            if len(content) > MAX_RECORD_BYTES:
                yield BadInput(f"{place} has more than {MAX_RECORD_BYTES} bytes; this is no page of text, drop it")
                continue
            if record.raw_stream.limit > 0 and not record.raw_stream.read(1):
                yield BadInput(f"{place} is cut off; copy or download the file again")
                return
            time = record.rec_headers.get_header("WARC-Date") or ""
            if kind == "response":
                yield Page(content, place, time)
                continue
            try:
                yield Page(content.decode("utf-8"), place, time)
            except UnicodeDecodeError as error:
                yield BadInput(f"{place} is not UTF-8 (its byte {error.start}); drop the record")
        if number and not file.tail.endswith(_END_OF_RECORD):
            yield BadInput(f"{file.path}: is cut off after record {number}; copy or download it again")
    except DAMAGE as error:
        yield BadInput(f"{file.damage(error)}; it went well up to record {number}")
    except (load_failed, ValueError) as error:
        yield BadInput(f"{file.path}: is no WARC after record {number} ({str(error).strip()}); copy or download it again")


def page_text(content: bytes) -> str | None:
    """The article of an HTML page, without navigation, comments and tables; None where it has none."""
    trafilatura = import_for("trafilatura", "a corpus of web pages")
    return trafilatura.extract(content, include_comments=False, include_tables=False, fast=True)


def _is_html(record) -> bool:
    headers = record.http_headers
    if headers is None or headers.get_statuscode() != "200":
        return False
    return (headers.get_header("Content-Type") or "").partition(";")[0].strip().lower() in _HTML
