"""Pages of web archives: in every content encoding and charset, damaged in any place; their articles and languages."""

import gzip
import io
import json
import random
import re
import sys
import zlib

import pytest

from robustbert.data.errors import DataError
from robustbert.data.text.byte_streams import InputFile
from robustbert.data.text.corpora import cc_news
from robustbert.data.text.corpora.http_content import UTF8_BOM, in_utf8, page_in_unicode
from robustbert.data.text.corpora.language import SURE_CHARS, is_english
from robustbert.data.text.corpora.warc import Page, page_text, pages
from robustbert.data.text.records import BadInput, LeftOut, ReaderOptions, Record
from tests.data.corpus_files import ENGLISH_ARTICLE, GERMAN_ARTICLE, warc

pytest.importorskip("warcio"), pytest.importorskip("webencodings")

PAGE = "<html><body><p>It costs 5 € a day in Düsseldorf.</p></body></html>"


def archive_of(path, *responses):
    """A WARC file of (body, headers) pairs, all of them HTML."""
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    content = io.BytesIO()
    writer = WARCWriter(content, gzip=True)
    for number, (body, headers) in enumerate(responses):
        http = StatusAndHeaders("200 OK", list({"Content-Type": "text/html", **headers}.items()), protocol="HTTP/1.1")
        address = f"http://x.example/{number}"
        writer.write_record(writer.create_warc_record(address, "response", payload=io.BytesIO(body), http_headers=http))
    path.write_bytes(content.getvalue())
    with InputFile(path) as file:
        return list(pages(file))


def compressed(encoding: str) -> bytes:
    """PAGE in UTF-8 in a content encoding."""
    body = PAGE.encode()
    if encoding == "raw deflate":
        compressor = zlib.compressobj(wbits=-15)
        return compressor.compress(body) + compressor.flush()
    library = {"br": "brotli", "zstd": "backports.zstd"}.get(encoding)
    if library:
        return pytest.importorskip(library).compress(body)
    return {"gzip": gzip.compress, "deflate": zlib.compress}[encoding](body)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate", "br", "zstd"])
def test_every_content_encoding_is_undone_and_a_damaged_one_is_one_bad_record(encoding, tmp_path):
    body, header = compressed(encoding), {"Content-Encoding": encoding.removeprefix("raw ").upper()}
    found = archive_of(
        tmp_path / "a.warc.gz", (body, header), (body[:-12], header), (b"\x00\xff" * 50, header), (b"", header), (body, header)
    )
    whole, cut_off, damaged, empty, last = found
    assert whole.content == last.content == PAGE.encode() and empty.content == b""
    assert type(cut_off) is type(damaged) is BadInput
    assert "record 2 (http://x.example/1): its" in cut_off.message and "drop the record" in damaged.message


def test_pages_that_the_crawler_has_decoded_or_encoded_twice_are_read(tmp_path):
    brotli, body = pytest.importorskip("brotli"), PAGE.encode()
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    found = archive_of(
        tmp_path / "a.warc.gz",
        (body, {"Content-Encoding": "br"}),
        (gzip.compress(brotli.compress(body)), {"Content-Encoding": "br, gzip"}),
        (body, {"Content-Encoding": "UTF-8"}),
        (chunks, {"Transfer-Encoding": "Chunked"}),
    )
    assert [page.content for page in found] == [body] * 4


def test_a_page_without_a_decoder_is_counted_under_its_encoding(tmp_path, monkeypatch):
    header = {"Content-Encoding": "br"}
    body = compressed("br")
    monkeypatch.setitem(sys.modules, "brotli", None)
    found = archive_of(tmp_path / "a.warc.gz", (body, header), (b"xx", {"Content-Encoding": "sdch"}))
    assert found == [
        LeftOut("pages in the content encoding br: install its decoder with pip install 'brotli>=1.2'"),
        LeftOut("pages in the content encoding sdch, which is not read"),
    ]


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd"])
def test_a_page_that_grows_without_end_is_bad_input(encoding, tmp_path, monkeypatch):
    monkeypatch.setattr("robustbert.data.text.corpora.http_content.MAX_RECORD_BYTES", 1 << 20)
    monkeypatch.setattr("robustbert.data.text.corpora.warc.MAX_RECORD_BYTES", 1 << 20)
    library = {"gzip": "gzip", "br": "brotli", "zstd": "backports.zstd"}[encoding]
    body = pytest.importorskip(library).compress(b" " * (1 << 23))
    (page,) = archive_of(tmp_path / "a.warc.gz", (body, {"Content-Encoding": encoding}))
    assert type(page) is BadInput and "has more than 1048576 bytes" in page.message


@pytest.mark.parametrize(
    ("codec", "content_type", "head"),
    [
        ("iso8859-15", "text/html; charset=ISO-8859-15", ""),
        ("cp1252", "text/html;charset='iso-8859-1'", ""),  # the label means windows-1252
        ("utf-8", "text/html; charset=utf-8", "<meta charset=iso-8859-1>"),  # HTTP comes before <meta>
        ("utf-8-sig", "text/html; charset=iso-8859-1", ""),  # and a byte order mark before both
        ("utf-16", "text/html; charset=iso-8859-1", ""),
        (
            "iso8859-15",
            "text/html; charset=nonsense",
            '<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-15">',
        ),
        ("cp1252", "text/html", "<!-- <meta charset=utf-8> --><meta charset=latin1>"),
        ("utf-8", "text/html", "<meta charset=utf-16>"),  # whoever can read that reads no UTF-16
        ("iso8859-15", "application/xhtml+xml", "XML"),
    ],
)
def test_the_charset_is_found_as_the_html_standard_says(codec, content_type, head, tmp_path):
    declaration = '<?xml version="1.0" encoding="iso-8859-15"?>' if head == "XML" else ""
    page = f"{declaration}<html><head>{'' if declaration else head}</head>{PAGE.removeprefix('<html>')}"
    (found,) = archive_of(tmp_path / "a.warc.gz", (page.encode(codec), {"Content-Type": content_type}))
    text = page_in_unicode(found.content)
    assert "5 € a day in Düsseldorf" in text and "<?xml" not in text


def test_mac_roman_by_its_header_and_a_page_that_declares_nothing():
    assert in_utf8("Tür".encode("mac-roman"), "macintosh") == UTF8_BOM + "Tür".encode()
    assert page_in_unicode(b"<p>plain</p>") == b"<p>plain</p>", "left to the extraction to detect"


def test_extraction_finds_the_text_beside_a_short_article():
    """trafilatura 2.0 to 2.3 in its fast mode takes an <article> of one paragraph for the whole text of this page."""
    trafilatura = pytest.importorskip("trafilatura")
    sentence = "The council met on Tuesday to discuss the new bridge, and many people who live near the river came to speak. "
    rest = "".join(f"<p>{number}. {sentence * 3}</p>" for number in range(12))
    page = f"<html><body><article><p>{sentence * 3}</p></article><div class='rest'>{rest}</div></body></html>".encode()
    assert len(page_text(page)) > 3500
    assert len(trafilatura.extract(page, fast=True, include_comments=False)) < 500


def test_whatever_parsing_a_page_raises_is_this_pages_fault_but_a_missing_library(monkeypatch):
    pytest.importorskip("trafilatura"), pytest.importorskip("py3langid")

    def fail(*_, **__):
        raise MemoryError("of libxml2")

    monkeypatch.setattr("trafilatura.extract", fail)
    result = cc_news.extract(Record(PAGE.encode(), "a.warc: record 1"), ReaderOptions())
    assert result == BadInput("a.warc: record 1 cannot be parsed (MemoryError: of libxml2); drop the record")
    monkeypatch.setitem(sys.modules, "trafilatura", None)
    with pytest.raises(DataError, match="needs the library trafilatura"):
        cc_news.extract(Record(PAGE.encode(), "a.warc: record 1"), ReaderOptions())


def test_archives_damaged_anywhere_end_in_bad_input_never_in_an_exception(tmp_path):
    rng, path, kinds = random.Random(5), tmp_path / "a.warc", set()
    whole = warc(zipped=False)
    for number in range(150):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 3, 20))):
            place = rng.randrange(len(damaged))
            damaged[place : place + rng.choice((0, 1, 40))] = rng.choice((b"\xff", b"\r\n", b":", b"-1", b"WARC/1.0\r\n", b""))
        path.write_bytes(bytes(damaged))
        with InputFile(path) as file:
            kinds |= {type(item) for item in pages(file)}
    assert kinds >= {Page, BadInput}


@pytest.mark.parametrize("damage", [(b"Content-Length: ", b"Content-Length: x"), (b"WARC-Target-URI", b"WARC-Target-XXX")])
def test_a_record_without_length_or_address_is_named(damage, tmp_path):
    (tmp_path / "a.warc").write_bytes(warc(zipped=False).replace(*damage))
    with InputFile(tmp_path / "a.warc") as file:
        assert any(type(item) is BadInput and "a.warc: " in item.message for item in pages(file))


def test_short_english_texts_are_kept_and_texts_in_other_languages_are_not(shared_data):
    """Of 300 paragraphs each, cut behind a word. By py3langid's first choice (0.3, 0.4) 9% of 30 characters are not English."""
    langid = pytest.importorskip("py3langid")
    lines = (shared_data / "text" / "wikitext-2-valid.txt").read_text().splitlines()
    wikipedia = [line.strip() for line in lines if len(line) > 300 and not line.startswith(" =")][:300]
    with gzip.open(shared_data / "text" / "bbc_news.jsonl.gz", "rt") as file:
        news = [json.loads(next(file))["text"] for _ in range(300)]
    texts = [re.sub(r"\s+", " ", text) for text in wikipedia + news]
    for length, most in ((30, 0.03), (50, 0.02), (100, 0.01), (SURE_CHARS, 0.005), (1000, 0.002)):
        pieces = [text[: text.find(" ", length)] for text in texts if text.find(" ", length) > 0]
        assert sum(not is_english(piece) for piece in pieces) <= most * len(pieces), length
    first_choice = [langid.classify(text[: text.find(" ", 30)])[0] for text in texts]
    assert sum(language != "en" for language in first_choice) > 0.05 * len(texts)
    assert is_english(ENGLISH_ARTICLE) and not is_english(GERMAN_ARTICLE)
    others = (
        GERMAN_ARTICLE[:60],
        "Le ministre a déclaré lundi que le pont serait ouvert.",
        "El puente se abrirá en primavera, dijo ayer.",
    )
    assert not any(is_english(text) for text in others)
