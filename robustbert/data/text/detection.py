"""What a file is, told by its first bytes: the reader that takes it, or why none does and what to do.

A file's ending decides only where the content does not: a table without a typical header, JSON lines that are all broken.
"""

import json
import re
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from robustbert.data.text.byte_streams import COMPRESSIONS, InputFile, peeked_compression
from robustbert.data.text.corpora import tables, wikiextractor
from robustbert.data.text.corpora.fields import DEFAULT_FIELD, field_of, names_of, no_field
from robustbert.data.text.encodings import wide_encoding
from robustbert.data.text.layout import LayoutSigns, signs_of

START_BYTES = 1 << 16
_ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".tsv": "tsv"}
_PLAIN = "--reader plain takes it as it is"
# What begins like this is no text, and no reader takes it (tar and WARC: none by itself).
_INDEXED = (b"MMIDIDX", b"TNTIDX")
_ARROW_STREAM = b"\xff\xff\xff\xff"
_BINARY = {
    b"PK\x03\x04": "a zip archive; unpack it and name its files",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it and name its files",
    b"Rar!\x1a\x07": "a rar archive; unpack it and name its files",
    b"\x04\x22\x4d\x18": "compressed with lz4; decompress it, or compress it with zstd",
    b"\x1f\x9d": "compressed with `compress` (.Z); decompress it, or compress it with gzip",
    b"\x00\x05\x16\x07": "what macOS keeps beside a file (AppleDouble), not the file; drop it",
    b"%PDF-": "a PDF; take the text out first, for instance with pdftotext",
    b"{\\rtf": "RTF; save it as plain text",
    b"\xd0\xcf\x11\xe0": "an old Office document; save it as plain text",
    b"ARROW1\x00\x00": "an Arrow file; write it as Parquet first (datasets: Dataset.to_parquet)",
    b"Obj\x01": "an Avro file; write it as Parquet or JSON lines first",
    b"SQLite format 3\x00": "an SQLite database; write its texts as JSON lines first",
    b"\x93NUMPY": "a NumPy array, not text",
    b"\x89HDF": "an HDF5 file, not text",
    b"\x89PNG": "a picture, not text",
    b"\xff\xd8\xff": "a picture, not text",
    b"\x7fELF": "a program, not text",
}
WEB_ARCHIVE = "a web archive (WARC, WET)"
_LFS = b"version https://git-lfs.github.com/spec/"
_TAR_MAGIC = slice(257, 262)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_MAX_CONTROL = 0.02  # of the bytes of a text
_NUMBERS = re.compile(r"\s*\d+(?:\s+\d+)*\s*")
_MARKUP_LINE = re.compile(r"\s*<[/!?A-Za-z].*>\s*")
_HEADER_CELL = re.compile(r"[^\W\d][\w.#-]{0,40}")
_MIN_SUBWORDS = 0.05  # of the words
_OBJECT_LINE = re.compile(r"\s*\{.*\}\s*")
_MIN_LINES, _MAX_LINES = 3, 300  # that are not blank: fewer do not tell a table or numbers, more tell no more


class Form(NamedTuple):
    """What a file was found to be.

    reader: one of readers.READERS, empty where none takes it: then refusal says why (it follows the file's name).
    what: in words. by_any_reader: no reader of text would make sense of it either, so a chosen one is refused too.
    signs: of plain text, for which layout it has.
    """

    reader: str
    what: str
    refusal: str = ""
    by_any_reader: bool = False
    signs: LayoutSigns | None = None


def detect(path: Path, text_field: str | None = None) -> Form:
    """What the file at path is. OSError where it cannot be opened; DataError where a library for it is not installed.

    text_field: the field with the text, of what has fields. A file that is a table or JSON without it is refused.
    A file that cannot be read (damaged, empty) has the form that its ending says: reading it tells the place.
    """
    if not path.is_file():  # a pipe can be read once
        return Form("plain", "plain text", signs=LayoutSigns())
    with InputFile(path) as file:
        content, damage = file.start(START_BYTES)
        compression = file.compression
    if not content:
        return _misnamed(path, compression) if damage else _by_ending(path)
    is_whole = not damage and len(content) < START_BYTES
    return (
        _stored_otherwise(path, content, compression)
        or _encoded_otherwise(content)
        or _container(content)
        or _text(path, content, is_whole, text_field)
    )


def uncompressed_name(path: Path | str) -> str:
    """The file's name without the ending of a compression."""
    name = Path(path).name
    return next((name.removesuffix(ending) for ending in COMPRESSIONS if name.endswith(ending)), name)


def _refused(what: str, way_out: str, by_any_reader: bool = False) -> Form:
    return Form("", what, f"is {what}; {way_out}", by_any_reader)


def _misnamed(path: Path, compression: str) -> Form:
    """A file that cannot be decompressed from its first byte on: damaged, or another thing than its ending says."""
    with open(path, "rb") as file:
        content = file.read(START_BYTES)
    if not content or peeked_compression(content):
        return _by_ending(path)
    return _stored_otherwise(path, content, "") or _refused(
        f"no {COMPRESSIONS[compression]} in spite of its name, it begins with {content[:20]!r}",
        f"if it was decompressed already, drop {compression} from its name, else download it again",
        True,
    )


def _by_ending(path: Path) -> Form:
    reader = _ENDINGS.get(Path(uncompressed_name(path)).suffix, "plain")
    return Form(reader, reader, signs=LayoutSigns() if reader == "plain" else None)


def _stored_otherwise(path: Path, content: bytes, compression: str) -> Form | None:
    """What is no text: indexed data, Parquet, archives, other files of programs."""
    if content.startswith(_INDEXED) or _is_beside_an_index(path):
        prefix = path.with_suffix("")
        return _refused("indexed data, tokens and not text", f"give it as `path: {prefix}` in data.train", True)
    if content.startswith(b"PAR1"):
        if compression:
            return _refused(f"Parquet inside {COMPRESSIONS[compression]}", "decompress it: Parquet is read from its end", True)
        return Form("parquet", "Parquet")
    if content.startswith(_ARROW_STREAM):
        return Form("arrow", "an Arrow stream, as datasets saves it")
    if content.startswith(_LFS):
        return _refused("a pointer of Git LFS, not the file itself", "fetch the file with `git lfs pull`", True)
    if content[_TAR_MAGIC] == b"ustar":
        return _refused("a tar archive", "unpack it, or --reader openwebtext if it holds one text a document", True)
    if inner := peeked_compression(content):
        return _refused(f"{COMPRESSIONS[inner]} inside {COMPRESSIONS[compression]}", "decompress it once", True)
    for magic, what in _BINARY.items():
        if content.startswith(magic):
            return Form("", what.partition(";")[0], f"is {what}", True)
    return None


def _is_beside_an_index(path: Path) -> bool:
    if path.suffix != ".bin" or not path.with_suffix(".idx").is_file():
        return False
    with open(path.with_suffix(".idx"), "rb") as file:
        return file.read(len(_INDEXED[0])).startswith(_INDEXED)


def _encoded_otherwise(content: bytes) -> Form | None:
    if wide := wide_encoding(content):
        refusal = f"line 1 (byte 0) is not UTF-8: the file is {wide}; convert it first: `iconv -f {wide} -t UTF-8`"
        return Form("", wide, refusal, by_any_reader=True)
    if len(_CONTROL.findall(content)) > _MAX_CONTROL * len(content):
        return _refused("binary, not text", "drop the file, or give the text that it was made of", True)
    return None


def _container(content: bytes) -> Form | None:
    """Text in a form of its own: web archives, dumps, markup."""
    start = content[:4096].decode("utf-8", "replace").removeprefix("\ufeff").lstrip()
    if start.startswith("WARC/"):
        return _refused(WEB_ARCHIVE, "choose --reader cc-news (its articles in English) or stories")
    if "<mediawiki" in start and start.startswith("<"):
        return Form("wikipedia", "a dump of Wikipedia")
    if wikiextractor.START.match(start):
        return Form("wikiextractor", "WikiExtractor's output")
    if re.match(r"<!doctype html|<html\b|<head\b", start, re.IGNORECASE):
        return _refused("an HTML page", f"take the text out first, for instance with trafilatura; {_PLAIN}")
    if start.startswith("<?xml"):
        return _refused("XML, and no dump of Wikipedia", f"take the text out first; {_PLAIN}")
    return None


def _text(path: Path, content: bytes, is_whole: bool, text_field: str | None) -> Form:
    text = content.decode("utf-8", "replace").removeprefix("\ufeff")
    lines = text.splitlines()
    if not is_whole and len(lines) > 1:
        lines = lines[:-1]  # it may be cut
    filled = list(islice((line for line in lines if line and not line.isspace()), _MAX_LINES))
    ending = _ENDINGS.get(Path(uncompressed_name(path)).suffix)
    return (
        _json(text, filled, is_whole, ending, text_field)
        or _table(filled, ending, text_field)
        or _no_prose(filled)
        or (Form("parquet", "Parquet, by its ending") if ending == "parquet" else None)
        or Form("plain", "plain text", signs=signs_of(lines))
    )


def _json(text: str, filled: list[str], is_whole: bool, ending: str | None, text_field: str | None) -> Form | None:
    """JSON lines, an array, or objects over several lines; None for what is none of them."""
    field = text_field or DEFAULT_FIELD
    start = text.lstrip()
    objects = [parsed for line in filled if isinstance(parsed := _parsed(line), dict)]
    if objects and 2 * len(objects) >= len(filled):
        if len(filled) == 1 and ending == "json":  # a document a file, or JSON lines of one: the same, and named better
            ending = "jsonl"
        if list(objects[0]) == wikiextractor.JSON_FIELDS and text_field is None:
            return Form("wikiextractor", "WikiExtractor's output as JSON lines")
        if not any(isinstance(field_of(found, field), str) for found in objects):
            return Form("", "JSON lines", no_field("line 1", field, names_of(objects[0])))
        return Form("jsonl", f"JSON lines, text in `{field}`")
    if start.startswith("{") and len(filled) == 1 and not is_whole and re.match(r'\{\s*"', start):
        return Form("jsonl", "JSON lines, the first one longer than what was looked at")
    begins_array = re.match(r'\[\s*[{"]', start)
    if not begins_array and not re.match(r'\{\s*"', start):
        return _by_name(ending)
    first = _first_value(start[1:].lstrip() if begins_array else start)
    if first is None and is_whole:
        return _by_name(ending)
    if isinstance(first, (dict, list)) and not isinstance(field_of(first, field), str):
        what = "a JSON array" if begins_array else "JSON over several lines"
        return Form("", what, no_field("its first document", field, names_of(first)))
    if begins_array:
        return Form("json", "a JSON array" + ("" if isinstance(first, str) else f", text in `{field}`"))
    return Form("json", f"JSON over several lines, text in `{field}`")


def _by_name(ending: str | None) -> Form | None:
    """For what is not JSON: a broken file with the ending of JSON stays JSON, so that its first fault is named."""
    return Form(ending, "JSON, by its ending") if ending in ("json", "jsonl") else None


def _parsed(line: str):
    try:
        return json.loads(line) if line.lstrip().startswith("{") else None
    except (ValueError, RecursionError):
        return None


def _first_value(text: str):
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None


def _table(filled: list[str], ending: str | None, text_field: str | None) -> Form | None:
    field = text_field or DEFAULT_FIELD
    if not filled:
        return None
    if ending in ("csv", "tsv"):
        names = tables.columns_of(filled[0], "\t" if ending == "tsv" else None)
        if field not in names:
            return Form("", f"a table ({ending})", no_field("line 1", field, names))
        return Form(ending, f"a table ({ending}), text in `{field}`")
    for reader, separator in (("tsv", "\t"), ("csv", tables.separator_of(filled[0]))):
        names = tables.columns_of(filled[0], separator)
        is_header = len(names) > 1 and all(_HEADER_CELL.fullmatch(name) for name in names)
        if len(filled) < _MIN_LINES or not _has_columns(filled, separator, len(names), needs_quotes=reader == "csv"):
            continue
        if is_header and field in names:
            return Form(reader, f"a table ({reader}), text in `{field}`")
        if is_header or reader == "tsv":
            return _refused(
                f"a table of {len(names)} columns ({', '.join(names)[:80]})",
                f"name the one with the text in its first line: --reader {reader} --text-field NAME; {_PLAIN}",
            )
    return None


def _has_columns(lines: list[str], separator: str, count: int, needs_quotes: bool) -> bool:
    """Whether nearly all lines are rows of so many columns (more than one)."""
    if count < 2:
        return False
    rows = [len(tables.columns_of(line, separator)) if needs_quotes else line.strip().count(separator) + 1 for line in lines]
    return rows.count(count) >= 0.9 * len(rows)


def _no_prose(filled: list[str]) -> Form | None:
    """What is made for programs although it is text: ids, subwords, markup."""
    if len(filled) < _MIN_LINES:
        return None
    if sum(bool(_NUMBERS.fullmatch(line)) for line in filled) >= 0.9 * len(filled):
        return _refused("numbers only (ids of an encoded text, as fairseq's .bpe?)", f"give the text itself; {_PLAIN}")
    if sum(bool(_OBJECT_LINE.fullmatch(line)) for line in filled) >= 0.9 * len(filled):
        return _refused("made of objects that are not JSON (single quotes?)", f"write them as JSON, one a line; {_PLAIN}")
    if sum(bool(_MARKUP_LINE.fullmatch(line)) for line in filled) >= 0.5 * len(filled):
        return _refused("markup", f"take the text out first; {_PLAIN}")
    words = f" {' '.join(filled)} "
    for kind, mark, undo in (
        ("subword-nmt", "@@ ", "sed -r 's/(@@ )|(@@ ?$)//g'"),
        ("SentencePiece", " ▁", "sed 's/ //g; s/▁/ /g'"),
        ("BERT's WordPiece", " ##", "sed 's/ ##//g'"),
    ):
        if words.count(mark) - words.count(f" {mark.strip()} ") > _MIN_SUBWORDS * words.count(" "):
            return _refused(f"text in the subwords of {kind}", f"give the text itself (`{undo}`); {_PLAIN}")
    return None
