"""Raw text as a stream: which files a source has, which reader they take, and their records and pieces in order.

Rules, for every reader: a blank line (nothing but white space) ends a paragraph; text is UTF-8; files may be compressed
(.gz, .bz2, .xz, .zst). The readers themselves are in corpora/, one module a kind of corpus; what they are made of is in
records.py.
"""

import glob
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from robustbert.data.errors import DataError
from robustbert.data.text import python_prose
from robustbert.data.text.byte_streams import COMPRESSIONS, DAMAGE, InputFile
from robustbert.data.text.corpora import arrow, books, cc_news, json_lines, openwebtext, parquet, plain, stories, wikipedia
from robustbert.data.text.records import (
    MAX_PIECE_CHARS,
    BadInput,
    Incomplete,
    Lacking,
    LeftOut,
    Piece,
    Reader,
    ReaderOptions,
    Record,
    pieces_of_text,
)

PYTHON_STDLIB = "python:stdlib"
_READERS: dict[str, Reader] = {
    "plain": plain.READER,
    "jsonl": json_lines.READER,
    "parquet": parquet.READER,
    "arrow": arrow.READER,
    "wikipedia": wikipedia.READER,
    "books": books.READER,
    "cc-news": cc_news.READER,
    "openwebtext": openwebtext.READER,
    "stories": stories.READER,
    "python-prose": python_prose.READER,
}
READERS = tuple(_READERS)
_BY_ENDING = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".arrow": "arrow"}

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Shard:
    """The part number `index` of `count` of a source; with by_documents every count-th document, else every count-th file."""

    index: int
    count: int
    by_documents: bool = False


@dataclass(frozen=True)
class TextSource:
    """Files of one kind, or the prose inside Python (which has no files to name)."""

    text: str  # as the user wrote it
    reader: str
    files: tuple[Path, ...]
    options: ReaderOptions = ReaderOptions()
    shard: Shard | None = None

    @property
    def num_bytes(self) -> int:
        """Size of the files as they lie on disk; an estimate for the prose inside Python."""
        if self.reader == "python-prose":
            return python_prose.ESTIMATED_BYTES
        return sum(path.stat().st_size for path in self.files)

    def identity(self) -> dict:
        """What makes this source the same as before: its files' names, sizes and times, or Python's version."""
        files = [_file_identity(path) for path in self.files]
        python = sys.version.split()[0] if self.reader == "python-prose" else None
        identity = {"text": self.text, "reader": self.reader, "files": files, "python": python}
        if self.options.chosen():
            identity["options"] = self.options.chosen()
        if self.options.queries_file is not None:
            identity["queries"] = _file_identity(Path(self.options.queries_file))
        if self.shard is not None:
            identity["shard"] = vars(self.shard)
        return identity


class Position(NamedTuple):
    """A place between two records: which source, which of its files, how many items of the file come before."""

    source: int = 0
    file: int = 0
    item: int = 0


def find_source(text: str, reader: str | None = None, options: ReaderOptions = ReaderOptions()) -> TextSource:
    """Resolve what a user wrote (a file, a glob, `python:stdlib`) and choose the reader by the ending if none is given.

    A folder stands for the files below it that its reader takes (plain text and JSON lines excepted: there the ending does
    not tell). DataError: no such file, a glob that matches nothing, such a folder, an unknown reader.
    """
    if reader is not None and reader not in READERS:
        raise DataError(f"{text}: reader {reader!r} is not known; use one of {', '.join(READERS)}")
    if reader is not None and (text == PYTHON_STDLIB) != (reader == "python-prose"):
        raise DataError(
            f"{text}: the reader python-prose and the source {PYTHON_STDLIB} belong together; give both or no reader"
        )
    if reader == "stories" and options.queries_file is None:
        raise DataError(
            f"{text}: the reader stories compares documents with questions; name their file: tools/preprocess "
            "--reader stories --queries FILE --share 0.001 (prepare the corpus before the run, and give its `path`)"
        )
    if text == PYTHON_STDLIB:
        return TextSource(text, "python-prose", ())
    paths = [Path(text)] if Path(text).exists() else [Path(match) for match in sorted(glob.glob(text, recursive=True))]
    if reader is None and any(map(arrow.is_saved, paths)):
        reader = "arrow"
    endings = _READERS[reader].endings if reader is not None else ()
    files = tuple(file for path in paths for file in (_files_below(path, endings) if path.is_dir() else [path]))
    if not files:
        if paths and endings:
            raise DataError(f"{text}: no file of the reader {reader} in it ({', '.join(endings)}, compressed or not)")
        if paths:
            raise DataError(f"{text}: is a folder; name its files, for instance {text.rstrip('/')}/*.txt")
        what = "matches no file" if glob.has_magic(text) else "no such file"
        raise DataError(f"{text}: {what} (looked from {Path.cwd()}); check the path")
    chosen = reader or _BY_ENDING.get(Path(_uncompressed_name(files[0])).suffix, "plain")
    return TextSource(text, chosen, files, options)


def take_shard(sources: list[TextSource], index: int, count: int) -> list[TextSource]:
    """The part `index` (from 0 on) of `count` of all sources: disjoint, and all of them together are everything.

    Where there are at least `count` files the part is every count-th file, else every count-th document of each file (then
    every part reads all of it, which takes far less than preparing it).
    """
    num_files = sum(len(source.files) for source in sources)
    if num_files < count:
        return [replace(source, shard=Shard(index, count, by_documents=True)) for source in sources]
    parts, number = [], 0
    for source in sources:
        files = tuple(path for i, path in enumerate(source.files, number) if i % count == index)
        number += len(source.files)
        if files:
            parts.append(replace(source, files=files, shard=Shard(index, count)))
    return parts


def read_records(
    sources: list[TextSource], piece_chars: list[int], advance: Advance = lambda num_bytes: None, start: Position = Position()
) -> Iterator[tuple[Position, Record | BadInput | LeftOut]]:
    """The records of all sources from a position on, each with the position after it; BadInput where one cannot be read.

    piece_chars: of each source. advance is called with the number of bytes (as they lie on disk) read since its last call.
    """
    for source_number in range(start.source, len(sources)):
        source = sources[source_number]
        first_file = start.file if source_number == start.source else 0
        for skipped in source.files[:first_file]:
            advance(skipped.stat().st_size)
        for file_number in range(first_file, max(1, len(source.files))):
            here = Position(source_number, file_number)
            num_skipped = start.item if here[:2] == start[:2] else 0
            items = _file_items(source, file_number, piece_chars[source_number], advance)
            document = file_number - 1  # of the shards by documents: files that hold one document each are shared out too
            for number, item in enumerate(items, 1):
                document += type(item) is Record and item.starts_document
                if number <= num_skipped:
                    continue
                if source.shard is not None and source.shard.by_documents:
                    if max(0, document) % source.shard.count != source.shard.index:
                        continue
                yield here._replace(item=number), item


def read_pieces(
    source: TextSource,
    piece_chars: int = MAX_PIECE_CHARS,
    advance: Advance = lambda num_bytes: None,
    skip_bad_input: bool = False,
) -> Iterator[Piece]:
    """The documents of a source, in order, in this process; one longer than piece_chars comes in pieces cut at paragraphs.

    DataError, with the file and the place in it, at the first input that cannot be used (unless it is to be skipped).
    """
    for _, record in read_records([source], [piece_chars], advance):
        for item in extract_pieces(source, record, piece_chars) if type(record) is Record else (record,):
            if type(item) is BadInput and not skip_bad_input:
                raise DataError(item.message)
            if type(item) is Piece:
                yield item


def extract_pieces(source: TextSource, record: Record, piece_chars: int) -> Iterator[Piece | Lacking | BadInput | LeftOut]:
    """The pieces of text in one record of a source, and behind them what they lack."""
    extract = _READERS[source.reader].extract
    if extract is None:
        yield Piece(record.content, record.starts_document)
        return
    text = extract(record, source.options)
    if isinstance(text, str):
        yield from pieces_of_text(text, piece_chars)
    elif type(text) is Incomplete:
        yield from pieces_of_text(text.text, piece_chars)
        yield text.lacking
    else:
        yield text


def _file_items(
    source: TextSource, file_number: int, piece_chars: int, advance: Advance
) -> Iterator[Record | BadInput | LeftOut]:
    records = _READERS[source.reader].records
    if not source.files:
        for record in records(None, source.options, piece_chars):
            advance(len(record.content))
            yield record
        return
    path, reported = source.files[file_number], 0
    try:
        if path.stat().st_size == 0 and path.is_file():
            yield BadInput(f"{path}: is empty; drop the file, or copy it again")
            return
        with InputFile(path) as file:
            try:
                for item in records(file, source.options, piece_chars):
                    position = file.position
                    if position != reported:
                        advance(position - reported)
                        reported = position
                    yield item
            except DAMAGE as error:
                yield BadInput(file.damage(error))
        advance(max(0, path.stat().st_size - reported))
    except OSError as error:
        yield BadInput(f"{path}: cannot be read ({error.strerror or error}); check the path and its permissions")


def _files_below(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and _has_ending(path.name, endings))


def _has_ending(name: str, endings: tuple[str, ...]) -> bool:
    return name.endswith(endings) or _uncompressed_name(name).endswith(endings) if endings else False


def _uncompressed_name(path: Path | str) -> str:
    name = Path(path).name
    return next((name.removesuffix(ending) for ending in COMPRESSIONS if name.endswith(ending)), name)


def _file_identity(path: Path) -> list:
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]
