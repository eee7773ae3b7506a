"""The body of an HTTP response as a crawl stored it: chunks joined, decompressed, and in the charset that was meant."""

import re
import zlib
from importlib import import_module

from robustbert.data.text.byte_streams import import_for
from robustbert.data.text.records import MAX_RECORD_BYTES

_CHUNK_BYTES = 1 << 16
_GZIP, _ZLIB, _RAW_DEFLATE = 31, 15, -15  # zlib's window bits
_NOT_COMPRESSED = frozenset(("", "identity", "none", "utf-8", "utf8", "binary", "7bit", "8bit", "text/html"))
_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([^\s;\"']+)", re.IGNORECASE)
_DECLARED = re.compile(
    rb"<meta\b[^>]*?\bcharset\s*=\s*[\"']?\s*([\w.:-]+)|<\?xml\b[^>]*?\bencoding\s*=\s*[\"']([\w.:-]+)", re.IGNORECASE
)
_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
_HEAD_BYTES = 1 << 14  # a charset is declared in there
_XML_DECLARATION = re.compile(r"\s*<\?xml\b[^>]*\?>")
_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
UTF8_BOM = _BOMS[0][0]


class NoDecoder(Exception):
    """A content encoding that cannot be undone here; its text names the encoding and the way out."""


class DamagedContent(Exception):
    """A body that is not in the encoding that its header names, or that ends too early."""


def decoded_body(body: bytes, encodings: str, is_truncated: bool = False) -> bytes:
    """The body without the content encodings that its header names: gzip, deflate, br and zstd, several after another.

    Archives that store a decoded page often keep the header: what cannot be decoded and begins as HTML does is taken as it
    is. At most MAX_RECORD_BYTES + 1 bytes are decoded. is_truncated: the crawler says that it stopped early.
    Raises NoDecoder and DamagedContent.
    """
    for encoding in reversed([encoding.strip().lower() for encoding in encodings.split(",")]):
        if encoding in _NOT_COMPRESSED or not body:
            continue
        try:
            body = _decompressed(body, encoding, is_truncated)
        except (NoDecoder, DamagedContent):
            if not _begins_as_html(body):
                raise
    return body


def header_charset(content_type: str) -> str | None:
    """The charset that a Content-Type header names, if it is one of the WHATWG's Encoding Standard."""
    match = _CHARSET.search(content_type)
    encoding = import_for("webencodings", "a corpus of web pages").lookup(match[1]) if match else None
    return encoding.name if encoding is not None else None


def in_utf8(body: bytes, charset: str) -> bytes:
    """A page in UTF-8 behind a byte order mark, which says so before anything else; as it is where it has one."""
    if any(body.startswith(bom) for bom, _ in _BOMS):
        return body
    return UTF8_BOM + _decode(body, charset).encode("utf-8")


def page_in_unicode(body: bytes) -> str | bytes:
    """A page as text, by its byte order mark or by what it declares; its bytes where there is neither.

    The order is the HTML standard's (section 13.2.3): the byte order mark, the HTTP header (in_utf8), <meta>. Labels mean
    what the Encoding Standard says: iso-8859-1 is windows-1252, and <meta> can declare no UTF-16.
    """
    for bom, codec in _BOMS:
        if body.startswith(bom):
            return _without_declaration(body[len(bom) :].decode(codec, "replace"))
    match = _DECLARED.search(_COMMENT.sub(b"", body[:_HEAD_BYTES]))
    if match is None:
        return body
    label = (match[1] or match[2]).decode("ascii", "replace")
    encoding = import_for("webencodings", "a corpus of web pages").lookup(label)
    if encoding is None:
        return body
    return _without_declaration(_decode(body, "utf-8" if encoding.name.startswith("utf-16") else encoding.name))


def _decode(body: bytes, charset: str) -> str:
    return import_for("webencodings", "a corpus of web pages").lookup(charset).codec_info.decode(body, "replace")[0]


def _without_declaration(page: str) -> str:
    return _XML_DECLARATION.sub("", page, count=1)  # libxml2 believes its encoding even of text


def _begins_as_html(body: bytes) -> bool:
    return body[:_CHUNK_BYTES].removeprefix(UTF8_BOM).lstrip()[:1] == b"<"


def _decompressed(body: bytes, encoding: str, is_truncated: bool) -> bytes:
    if encoding in ("gzip", "x-gzip"):
        content, is_whole = _inflated(body, _GZIP)
    elif encoding in ("deflate", "x-deflate"):
        try:
            content, is_whole = _inflated(body, _ZLIB)
        except DamagedContent:
            content, is_whole = _inflated(body, _RAW_DEFLATE)  # what some servers send
    elif encoding == "br":
        content, is_whole = _from_brotli(body)
    elif encoding == "zstd":
        content, is_whole = _from_zstd(body)
    else:
        raise NoDecoder(f"pages in the content encoding {encoding[:20]}, which is not read")
    if is_whole or is_truncated or len(content) > MAX_RECORD_BYTES or b"</html" in content[-_CHUNK_BYTES:].lower():
        return content
    raise DamagedContent(f"its {encoding} content is cut off")


def _inflated(body: bytes, window_bits: int) -> tuple[bytes, bool]:
    parts, size = [], 0
    while body and size <= MAX_RECORD_BYTES:
        decompressor = zlib.decompressobj(window_bits)
        try:
            parts.append(decompressor.decompress(body, MAX_RECORD_BYTES + 1 - size))
        except zlib.error as error:
            if parts:  # padding behind a whole member
                break
            raise DamagedContent(f"its {'gzip' if window_bits == _GZIP else 'deflate'} content is damaged ({error})") from None
        size += len(parts[-1])
        body = decompressor.unused_data if window_bits == _GZIP else b""
        if not decompressor.eof:
            return b"".join(parts), False
    return b"".join(parts), bool(parts)


def _from_brotli(body: bytes) -> tuple[bytes, bool]:
    try:
        brotli = import_module("brotli")
        decompressor = brotli.Decompressor()
        decompressor.can_accept_more_data  # noqa: B018  (since 1.2: the size of what comes out can be bounded)
    except (ImportError, AttributeError):
        raise NoDecoder("pages in the content encoding br: install its decoder with pip install 'brotli>=1.2'") from None
    parts, size = [], 0
    try:
        parts.append(decompressor.process(body, output_buffer_limit=_CHUNK_BYTES))
        while parts[-1] and not decompressor.is_finished() and size <= MAX_RECORD_BYTES:
            size += len(parts[-1])
            parts.append(decompressor.process(b"", output_buffer_limit=_CHUNK_BYTES))
    except brotli.error as error:
        raise DamagedContent(f"its br content is damaged ({error})") from None
    return b"".join(parts), decompressor.is_finished()


def _from_zstd(body: bytes) -> tuple[bytes, bool]:
    try:
        zstd = import_module("backports.zstd")
    except ImportError:
        raise NoDecoder("pages in the content encoding zstd: install its decoder with pip install backports.zstd") from None
    decompressor = zstd.ZstdDecompressor()
    try:
        return decompressor.decompress(body, MAX_RECORD_BYTES + 1), decompressor.eof
    except zstd.ZstdError as error:
        raise DamagedContent(f"its zstd content is damaged ({error})") from None
