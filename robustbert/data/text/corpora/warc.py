"""Web archives: the pages of a WARC file (responses), or the texts of a WET file (conversions)."""

from collections.abc import Iterator
from typing import NamedTuple

from robustbert.data.text.byte_streams import DAMAGE, InputFile, import_for
from robustbert.data.text.corpora.http_content import (
    DamagedContent,
    NoDecoder,
    decoded_body,
    header_charset,
    in_utf8,
    page_in_unicode,
)
from robustbert.data.text.records import MAX_RECORD_BYTES, BadInput, LeftOut

_HTML = ("text/html", "application/xhtml+xml")
_END_OF_RECORD = b"\r\n\r\n"


class Page(NamedTuple):
    """A page of an archive: HTML as bytes, or text where the archive holds text; place and ISO time of the crawl.

    HTML whose charset the HTTP header names is in UTF-8 already, behind a byte order mark.
    """

    content: bytes | str
    place: str
    time: str


def pages(file: InputFile) -> Iterator[Page | BadInput | LeftOut]:
    """The pages that were fetched (status 200, HTML), and the texts, in order; what is neither is no document."""
    archives = import_for("warcio.archiveiterator", "a WARC file")
    load_failed = import_for("warcio.exceptions", "a WARC file").ArchiveLoadFailed
    number = 0
    try:
        for record in _read(archives.ArchiveIterator(file)):
            number += 1
            place = f"{file.path}: record {number} ({record.rec_headers.get_header('WARC-Target-URI')})"
            kind = record.rec_type
            if kind not in ("response", "conversion") or (kind == "response" and not _is_html(record)):
                continue
            if not hasattr(record.raw_stream, "limit"):
                yield BadInput(f"{place} has no valid Content-Length; drop the record")
                continue
            content = _raw_content(record)
            if len(content) > MAX_RECORD_BYTES:
                yield BadInput(f"{place} has more than {MAX_RECORD_BYTES} bytes; this is no page of text, drop it")
                continue
            if record.raw_stream.limit > 0 and not record.raw_stream.read(1):
                yield BadInput(f"{place} is cut off; copy or download the file again")
                return
            time = record.rec_headers.get_header("WARC-Date") or ""
            if kind == "response":
                yield _page(content, record, place, time)
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
        yield BadInput(
            f"{file.path}: is no WARC after record {number} ({str(error).strip()}), and is not read further; "
            "copy or download it again"
        )


def _read(archive: Iterator) -> Iterator:
    """The records; ValueError for one without an address, too, which warcio up to 1.8 meets with an AttributeError."""
    while True:
        try:
            record = next(archive, None)
        except AttributeError as error:
            raise ValueError(f"damaged header: {error}") from None
        if record is None:
            return
        yield record


def _raw_content(record) -> bytes:
    """The record's content without HTTP's chunks, at most one byte more than is taken."""
    headers = record.http_headers
    stream = record.raw_stream
    if headers is not None and "chunked" in (headers.get_header("Transfer-Encoding") or "").lower():
        stream = import_for("warcio.bufferedreaders", "a WARC file").ChunkedDataReader(stream)
    return stream.read(MAX_RECORD_BYTES + 1)


def _page(content: bytes, record, place: str, time: str) -> Page | BadInput | LeftOut:
    """A response's page. Not warcio's content_stream: with brotli installed it fails on every page in br (1.8 and before:
    it sets an attribute of a type that has none), and hands on other encodings compressed.
    """
    headers = record.http_headers
    try:
        is_truncated = record.rec_headers.get_header("WARC-Truncated") is not None
        content = decoded_body(content, headers.get_header("Content-Encoding") or "", is_truncated)
    except NoDecoder as error:
        return LeftOut(str(error))
    except DamagedContent as error:
        return BadInput(f"{place}: {error}; drop the record")
    if len(content) > MAX_RECORD_BYTES:
        return BadInput(f"{place} has more than {MAX_RECORD_BYTES} bytes; this is no page of text, drop it")
    charset = header_charset(headers.get_header("Content-Type") or "")
    return Page(in_utf8(content, charset) if charset else content, place, time)


def page_text(content: bytes) -> str | None:
    """The article of an HTML page, without navigation, comments and tables; None where it has none.

    Not in trafilatura's fast mode, which loses most of the text of 4.4% of pages (exact: 2.7%) and is 1.4 times as fast
    (benchmarks/records/2026-11-27_html_extraction.md).
    """
    trafilatura = import_for("trafilatura", "a corpus of web pages")
    return trafilatura.extract(page_in_unicode(content), include_comments=False, include_tables=False)


def _is_html(record) -> bool:
    headers = record.http_headers
    if headers is None or headers.get_statuscode() != "200":
        return False
    return (headers.get_header("Content-Type") or "").partition(";")[0].strip().lower() in _HTML
