"""Raw text as a stream: which files a source has, which reader each takes, and their records and pieces in order.

Rules, for every reader: a blank line (nothing but white space) ends a paragraph; text is UTF-8; a byte order mark is
dropped; files may be compressed (.gz, .bz2, .xz, .zst). The readers themselves are in corpora/, one module a kind of corpus;
what they are made of is in records.py, which file takes which is found in detection.py.
"""

import glob
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from robustbert.data.errors import DataError
from robustbert.data.text import python_prose
from robustbert.data.text.byte_streams import DAMAGE, InputFile
from robustbert.data.text.corpora import (
    arrow,
    books,
    cc_news,
    json_lines,
    json_values,
    openwebtext,
    parquet,
    plain,
    stories,
    tables,
    wikiextractor,
    wikipedia,
)
from robustbert.data.text.detection import Form, detect, uncompressed_name
from robustbert.data.text.layout import find_layout
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
    Remark,
    pieces_of_text,
)

PYTHON_STDLIB = "python:stdlib"
_READERS: dict[str, Reader] = {
    "plain": plain.READER,
    "jsonl": json_lines.READER,
    "json": json_values.READER,
    "csv": tables.CSV_READER,
    "tsv": tables.TSV_READER,
    "parquet": parquet.READER,
    "arrow": arrow.READER,
    "wikipedia": wikipedia.READER,
    "wikiextractor": wikiextractor.READER,
    "books": books.READER,
    "cc-news": cc_news.READER,
    "openwebtext": openwebtext.READER,
    "stories": stories.READER,
    "python-prose": python_prose.READER,
}
AUTO = "auto"  # each file's content tells
READERS = tuple(_READERS)
TEXT_FIELD_READERS = ("jsonl", "json", "csv", "tsv", "parquet", "arrow")
# Readers that take any file which is text at all: what certainly is none is refused before they see it.
_TEXT_READERS = ("plain", "jsonl", "json", "csv", "tsv", "wikipedia", "wikiextractor", "books", "stories")
_REFUSED = "none"
_THREADS = 8  # look at the first bytes of many files, which may lie far away
# What other programs leave in a folder beside its files.
_BY_THE_WAY = (".DS_Store", "Thumbs.db", "desktop.ini", "_SUCCESS")

DEFAULT_LAYOUT = "two-blank-lines"

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Shard:
    """The part number `index` of `count` of a source; with by_documents every count-th document, else every count-th file."""

    index: int
    count: int
    by_documents: bool = False


@dataclass(frozen=True)
class TextSource:
    """Files of text, or the prose inside Python (which has no files to name).

    reader: of all files; auto where they differ: then readers has one for each. found: what the files were taken for, in
    words, a line for each form. left_out: files of the folder or the pattern that are none of its text.
    """

    text: str  # as the user wrote it
    reader: str
    files: tuple[Path, ...]
    options: ReaderOptions = ReaderOptions()
    shard: Shard | None = None
    readers: tuple[str, ...] = ()
    found: tuple[str, ...] = ()
    left_out: tuple[Path, ...] = ()

    def reader_of(self, file_number: int) -> str:
        """The reader of the file with this number."""
        return self.readers[file_number] if self.readers else self.reader

    @property
    def num_bytes(self) -> int:
        """Size of the files as they lie on disk; an estimate for the prose inside Python."""
        if self.reader == "python-prose":
            return python_prose.ESTIMATED_BYTES
        return sum(path.stat().st_size for path in self.files)

    def in_words(self) -> list[str]:
        """What the source's files were taken for, and which ones are left out: a line each."""
        left_out = [f"{path}: left out, not a file of text" for path in self.left_out[:1]]
        if len(self.left_out) > 1:
            left_out = [f"{self.left_out[0]} and {len(self.left_out) - 1:,} more: left out, not files of text"]
        return [*self.found, *left_out]

    def identity(self) -> dict:
        """What makes this source the same as before: its files' names, sizes and times, or Python's version."""
        files = [_file_identity(path) for path in self.files]
        python = sys.version.split()[0] if self.reader == "python-prose" else None
        identity = {"text": self.text, "reader": self.reader, "files": files, "python": python}
        if self.readers:
            identity["readers"] = list(self.readers)
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


def find_source(
    text: str, reader: str | None = None, options: ReaderOptions = ReaderOptions(), skip_bad_input: bool = False
) -> TextSource:
    """Resolve what a user wrote (a file, a glob, `python:stdlib`), and find the reader of each file unless one is given.

    reader: None or auto: the content of each file tells. options.documents of None: found in the plain files.
    A folder stands for the files below it that its reader takes (there has to be one: plain text has no ending of its own).
    DataError: no such file, a glob that matches nothing, such a folder, an unknown reader; a file that no reader takes
    (unless skip_bad_input: then it is bad input when it is read).
    """
    reader = None if reader == AUTO else reader
    if reader is not None and reader not in READERS:
        raise DataError(f"{text}: reader {reader!r} is not known; use one of {', '.join((AUTO, *READERS))}")
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
    if reader is None and any(map(arrow.is_saved, _paths_of(text))):
        reader = "arrow"
    files, left_out = _files_of(text, reader)
    forms = _forms_of(files, reader, options)
    if not skip_bad_input:
        for path, form in zip(files, forms):
            if form.refusal:
                raise DataError(f"{path}: {form.refusal}")
    layout = options.documents or find_layout([form.signs for form in forms if form.signs is not None])
    tells = reader is None or (reader == "plain" and options.documents is None)
    found = _in_words(files, forms, layout) if tells else ()
    options = replace(options, documents=None if layout == DEFAULT_LAYOUT else layout)
    readers = _of_files([form.reader or _REFUSED for form in forms])
    return TextSource(text, files=files, options=options, found=found, left_out=left_out, **readers)


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
        taken = [i for i in range(len(source.files)) if (number + i) % count == index]
        number += len(source.files)
        if taken:
            readers = _of_files([source.reader_of(i) for i in taken])
            parts.append(replace(source, files=tuple(source.files[i] for i in taken), shard=Shard(index, count), **readers))
    return parts


def read_records(
    sources: list[TextSource], piece_chars: list[int], advance: Advance = lambda num_bytes: None, start: Position = Position()
) -> Iterator[tuple[Position, Record | BadInput | LeftOut | Remark]]:
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
    extract = _READERS[record.reader or source.reader].extract
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
) -> Iterator[Record | BadInput | LeftOut | Remark]:
    reader = source.reader_of(file_number)
    if reader == _REFUSED:
        path = source.files[file_number]
        advance(path.stat().st_size)
        yield BadInput(f"{path}: {detect(path, source.options.text_field).refusal}")
        return
    records = _READERS[reader].records
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
                    yield item._replace(reader=reader) if source.readers and type(item) is Record else item
            except DAMAGE as error:
                yield BadInput(file.damage(error))
        advance(max(0, path.stat().st_size - reported))
    except OSError as error:
        yield BadInput(f"{path}: cannot be read ({error.strerror or error}); check the path and its permissions")


def _files_of(text: str, reader: str | None) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The files that a user wrote, and those beside them that are none of the text. DataError: there are none."""
    paths = _paths_of(text)
    endings = _READERS[reader].endings if reader is not None else ()
    found = [file for path in paths for file in (_files_below(path, endings) if path.is_dir() else [path])]
    left_out = [path for path in found if path != Path(text) and _is_by_the_way(path, text)]
    files = tuple(path for path in found if path not in set(left_out))
    left_out += [path for path in paths if path.is_dir() and not endings]
    if files:
        return files, tuple(left_out)
    if found:
        raise DataError(f"{text}: only files that other programs keep beside text ({left_out[0].name}); check the path")
    if paths and endings:
        raise DataError(f"{text}: no file of the reader {reader} in it ({', '.join(endings)}, compressed or not)")
    if paths:
        raise DataError(f"{text}: is a folder; name its files, for instance {text.rstrip('/')}/*.txt")
    what = "matches no file" if glob.has_magic(text) else "no such file"
    raise DataError(f"{text}: {what} (looked from {Path.cwd()}); check the path")


def _paths_of(text: str) -> list[Path]:
    return [Path(text)] if Path(text).exists() else [Path(match) for match in sorted(glob.glob(text, recursive=True))]


def _is_by_the_way(path: Path, text: str) -> bool:
    """Whether a file of a folder or a pattern is hidden, or what macOS, Windows or Spark leave beside files."""
    if Path(text).is_dir():
        below = path.parts[len(Path(text).parts) :]
        return path.name in _BY_THE_WAY or any(part.startswith(".") or part == "__MACOSX" for part in below)
    return path.name in _BY_THE_WAY or path.name.startswith("._")  # a pattern names hidden files only if it says so


def _forms_of(files: tuple[Path, ...], reader: str | None, options: ReaderOptions) -> list[Form]:
    """What each file is; with a reader given: that, unless the file certainly is no text."""
    if reader is not None and reader not in _TEXT_READERS:
        return [Form(reader, reader)] * len(files)

    def form_of(path: Path) -> Form:
        try:
            form = detect(path, options.text_field)
        except OSError:  # reading it says so, with the way out
            return Form(reader or "plain", "not readable")
        if reader is None or form.by_any_reader:
            return form
        if reader == "stories" and not stories.takes(form):
            return Form("", form.what, f"is {form.what}; --reader stories takes web archives, JSON lines and plain text")
        return Form(reader, "plain text" if reader == "plain" else reader, signs=form.signs if reader == "plain" else None)

    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(form_of, files))


def _in_words(files: tuple[Path, ...], forms: list[Form], layout: str) -> tuple[str, ...]:
    """A line for each form that was found."""
    groups: dict[str, list[Path]] = {}
    for path, form in zip(files, forms):
        what = f"{form.what}, {plain.LAYOUTS[layout]}" if form.reader == "plain" else form.what
        groups.setdefault(what if form.reader else f"not taken: {what}", []).append(path)
    return tuple(
        f"{paths[0]}{f' and {len(paths) - 1:,} more' if len(paths) > 1 else ''}: {what}" for what, paths in groups.items()
    )


def _of_files(readers: list[str]) -> dict:
    """TextSource's reader and readers for files with these ones."""
    return {"reader": readers[0], "readers": ()} if len(set(readers)) == 1 else {"reader": AUTO, "readers": tuple(readers)}


def _files_below(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and _has_ending(path.name, endings))


def _has_ending(name: str, endings: tuple[str, ...]) -> bool:
    return name.endswith(endings) or uncompressed_name(name).endswith(endings) if endings else False


def _file_identity(path: Path) -> list:
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]
