"""The English prose that ships inside Python itself: about 2 MB of text on every machine, for trying things out."""

import ast
import inspect
import sysconfig
import warnings
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from robustbert.data.errors import DataError
from robustbert.data.text.records import Reader, ReaderOptions, Record

# Folders of the standard library whose docstrings are not prose about Python, or not part of it.
_LEFT_OUT = {"test", "tests", "idle_test", "lib2to3", "site-packages", "dist-packages", "__pycache__"}
ESTIMATED_BYTES = 2_200_000  # what it comes to, give or take: known before it is read


def python_prose() -> Iterator[str]:
    """One document a language topic (pydoc's), then one a module: all its docstrings, in the order of the code.

    The same for the same Python. Modules are only parsed, never imported or run.
    DataError where this Python has neither.
    """
    num_documents = 0
    for document in chain(_topics(), _modules(Path(sysconfig.get_path("stdlib")))):
        num_documents += 1
        yield document
    if num_documents == 0:
        raise DataError("python:stdlib: this Python has no sources beside it; install its standard library, or name a file")


def records(file: None, options: ReaderOptions, piece_chars: int) -> Iterator[Record]:
    """The prose as a reader's records; there is no file."""
    for number, document in enumerate(python_prose(), 1):
        yield Record(document, f"python:stdlib: document {number}")


def extract(record: Record, options: ReaderOptions) -> str:
    """The document itself."""
    return record.content


def _topics() -> Iterator[str]:
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some distributions leave it out
        return
    for name in sorted(topics):
        yield _one_document(topics[name])


def _modules(stdlib: Path) -> Iterator[str]:
    for path in sorted(stdlib.rglob("*.py"), key=lambda path: path.relative_to(stdlib).parts):
        if _LEFT_OUT.isdisjoint(path.relative_to(stdlib).parts):
            docstrings = "\n\n".join(_docstrings(path))
            if docstrings:
                yield _one_document(docstrings)


def _docstrings(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escape sequences
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):  # a template, or a file for another Python
        return
    for node in _statements(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node, clean=False)
            if docstring and docstring.strip():
                yield inspect.cleandoc(docstring)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """The node and the statements below it, in the order of the code; expressions hold no docstrings and take long."""
    yield node
    for field in ("body", "handlers", "orelse", "finalbody", "cases"):
        below = getattr(node, field, None)
        for child in below if isinstance(below, list) else ():
            yield from _statements(child)


def _one_document(text: str) -> str:
    # Two blank lines would end a document. Lone surrogates stand in some docstrings and cannot be encoded.
    lines = [line.rstrip() for line in text.encode("utf-8", "replace").decode("utf-8").splitlines()]
    kept = [line for line, before in zip(lines, ["", *lines]) if line or before]
    return "\n".join(kept)


READER = Reader(records, extract)
