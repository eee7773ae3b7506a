"""Documents come out as they went in; bad files are named with the place in them."""

import gzip
import json

import pytest

from robustbert.data.errors import DataError
from robustbert.data.preparation.hold_out import hold_out, piece_chars
from robustbert.data.text.python_prose import python_prose
from robustbert.data.text.readers import Piece, find_source, read_pieces
from robustbert.data.text.records import ReaderOptions
from tests.data.conftest import make_text


def pieces_of(path, **options):
    return list(read_pieces(find_source(str(path)), **options))


def test_two_blank_lines_end_a_document_and_one_a_paragraph(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\ntwo\r\n\r\nthree\n \n\t\nfour\n\n\n\nfive".encode())
    assert pieces_of(tmp_path / "a.txt") == [Piece("one\ntwo\n\nthree", True), Piece("four", True), Piece("five", True)]


def test_a_long_document_comes_in_pieces_of_whole_paragraphs(tmp_path):
    (tmp_path / "a.txt").write_text("aaaa\n\nbbbb\n\ncccc\n\n\ndddd\n")
    assert pieces_of(tmp_path / "a.txt", piece_chars=9) == [
        Piece("aaaa\n\nbbbb", True),
        Piece("cccc", False),
        Piece("dddd", True),
    ]


def test_memory_is_bounded_where_a_file_has_no_line_ends(tmp_path):
    text = "żółw " * 700_000  # more than two buffers, and characters that the buffers' ends cut in two
    (tmp_path / "a.txt").write_text(text)
    pieces = pieces_of(tmp_path / "a.txt")
    assert "".join(piece.text for piece in pieces) == text
    assert max(len(piece.text) for piece in pieces) < 2**21
    assert [piece.starts_document for piece in pieces] == [True] + [False] * (len(pieces) - 1)


def test_gzip_is_known_by_ending_or_content_and_json_lines_by_ending(tmp_path):
    line = json.dumps({"text": "one\n\n\n\ntwo"}) + "\n\n"
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line.encode()))
    (tmp_path / "b.jsonl").write_bytes(gzip.compress(line.encode()))
    (tmp_path / "c.jsonl").write_text(line)
    assert [pieces_of(tmp_path / n) for n in ("a.jsonl.gz", "b.jsonl", "c.jsonl")] == [[Piece("one\n\ntwo", True)]] * 3
    assert [path.name for path in find_source(str(tmp_path / "*.jsonl")).files] == ["b.jsonl", "c.jsonl"]


def test_progress_adds_up_to_the_files_size(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(make_text(500).encode()))
    read = []
    pieces_of(tmp_path / "a.txt.gz", advance=read.append)
    assert sum(read) == (tmp_path / "a.txt.gz").stat().st_size


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"good\nb\xe9d\n", r"line 2 \(byte 6\) is not UTF-8.*iconv"),
        ("a.txt.gz", gzip.compress(make_text(50).encode())[:-200], "damaged or cut-off gzip"),
        ("b.txt.gz", b"not gzip at all", "is no gzip in spite of its name, it begins with .*drop .gz from its name"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "line 2 is not JSON"),
        ("b.jsonl", b'{"body": "a"}\n', "line 1 has no text in a field `text`"),
    ],
)
def test_bad_files_are_refused_with_the_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        pieces_of(tmp_path / name)
    assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "reader", "message"),
    [
        ("nowhere.txt", None, "no such file"),
        ("nowhere/*.txt", None, "matches no file"),
        (".", None, "is a folder"),
        ("nowhere.txt", "xlsx", "not known"),
        ("python:stdlib", "plain", "belong together"),
        ("a.txt", "python-prose", "belong together"),
    ],
)
def test_sources_that_are_not_there_are_refused(tmp_path, monkeypatch, text, reader, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        find_source(text, reader)


def test_books_are_told_apart(shared_data):
    pieces = pieces_of(shared_data / "text" / "gutenberg.txt.gz")
    assert sum(piece.starts_document for piece in pieces) == 135


def test_python_holds_two_megabytes_of_prose():
    documents = list(python_prose())
    assert sum(len(document.encode()) for document in documents) > 2_000_000
    assert len(documents) > 400
    assert not any("\n\n\n" in document for document in documents)


def held_out_share(pieces, fraction):
    marked = list(hold_out(pieces, fraction))
    assert marked == list(hold_out(pieces, fraction))
    assert {held_out for _, held_out in marked} == {True, False}
    return sum(len(p.text) for p, held_out in marked if held_out) / sum(len(p.text) for p in pieces)


@pytest.mark.parametrize("fraction", [0.01, 0.03, 0.2, 0.9])
def test_the_held_out_share_is_near_the_fraction_however_unequal_the_documents(fraction):
    sizes = [10, 100, 1_000, 20_000] * 300
    pieces = [Piece(chr(97 + i % 26) * size, True) for i, size in enumerate(sizes)]
    assert abs(held_out_share(pieces, fraction) - fraction) <= 20_000 / sum(sizes)


def test_one_single_document_is_cut_so_that_a_part_can_be_held_out(tmp_path):
    (tmp_path / "one.txt").write_text(make_text(400).replace("\n\n\n", "\n\n"))
    source = find_source(str(tmp_path / "one.txt"), options=ReaderOptions(documents="two-blank-lines"))
    pieces = list(read_pieces(source, piece_chars(source, 0.05)))
    assert sum(piece.starts_document for piece in pieces) == 1
    assert 0.02 < held_out_share(pieces, 0.05) < 0.08


def test_a_document_whose_middle_is_held_out_becomes_two():
    marked = list(hold_out([Piece("x" * 50, i == 0) for i in range(40)], 0.3))
    sides = [held_out for _, held_out in marked]
    starts = [piece.starts_document for piece, _ in marked]
    assert starts == [True] + [now != before for now, before in zip(sides[1:], sides)]


def test_a_text_that_cannot_be_cut_cannot_be_held_out():
    with pytest.raises(DataError, match="too short to hold some of it out"):
        list(hold_out([Piece("one paragraph", True)], 0.1))
    assert [held_out for _, held_out in hold_out([Piece("a", True), Piece("b", True)], 0.001)].count(True) == 1
