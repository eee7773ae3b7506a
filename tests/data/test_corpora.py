"""What each kind of corpus yields, to the character."""

import bz2
import gzip
import json
import lzma

import pytest

from robustbert.data.errors import DataError
from robustbert.data.text.corpora.stories import Similarity, SimilarityCounts, read_questions
from robustbert.data.text.corpora.wikipedia import running_text
from robustbert.data.text.readers import find_source, read_pieces, read_records
from robustbert.data.text.records import LeftOut, Piece, ReaderOptions
from tests.data.conftest import make_text
from tests.data.corpus_files import (
    CAT,
    ENGLISH_ARTICLE,
    GERMAN_ARTICLE,
    WIKITEXT,
    open_web_text,
    tar_of,
    warc,
    wet,
    write_dump,
    write_parquet,
)


def documents_of(path, reader=None, options=ReaderOptions()):
    pieces = list(read_pieces(find_source(str(path), reader, options)))
    assert all(piece.starts_document for piece in pieces)
    return [piece.text for piece in pieces]


def left_out(path, reader, options=ReaderOptions()):
    items = read_records([find_source(str(path), reader, options)], [1000])
    return [item.reason for _, item in items if type(item) is LeftOut]


@pytest.mark.parametrize("name", ["dump.xml", "dump.xml.bz2"])
def test_wikipedia_yields_the_running_text_of_articles(tmp_path, name):
    pytest.importorskip("mwparserfromhell")
    write_dump(tmp_path / name)
    assert documents_of(tmp_path / name, "wikipedia") == [CAT, "The dog is a pet.\n\nIt barks."]
    assert left_out(tmp_path / name, "wikipedia") == ["redirects", "pages that are no articles"]


def test_wikitext_of_any_damage_gives_some_text():
    pytest.importorskip("mwparserfromhell")
    for end in range(0, len(WIKITEXT), 7):
        running_text(WIKITEXT[:end])
    assert running_text("}} |} text {{ [[ {| ''") != ""


def test_a_book_is_one_document_without_what_project_gutenberg_adds(tmp_path):
    book = "CHAPTER I\n\n\n\nIt began.\n\n\n\nCHAPTER II\n\nIt went on."
    marked = f"The Project Gutenberg eBook\n\nTitle: It\n\n*** START OF THE PROJECT GUTENBERG EBOOK IT ***\n\n\n{book}\n\n"
    marked += "*** END OF THE PROJECT GUTENBERG EBOOK IT ***\n\nUpdated editions will replace this licence.\n"
    (tmp_path / "a.txt").write_text(marked)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "b.txt.gz").write_bytes(gzip.compress(book.encode()))
    (tmp_path / "below" / "cover.png").write_bytes(b"\x89PNG")
    (tmp_path / "c.txt").write_text(marked.replace("GUTENBERG EBOOK IT ***", "GUTENBERG EBOOK\nIT, BY NOBODY ***", 1))
    expected = "CHAPTER I\n\nIt began.\n\nCHAPTER II\n\nIt went on."
    assert documents_of(tmp_path, "books") == [expected] * 3


def test_cc_news_yields_english_articles_of_the_dates(tmp_path):
    pytest.importorskip("warcio"), pytest.importorskip("trafilatura"), pytest.importorskip("py3langid")
    reversed_article = "\n".join(ENGLISH_ARTICLE.split("\n")[::-1])
    for name, content in (("a.warc.gz", warc()), ("b.warc", warc(zipped=False))):
        (tmp_path / name).write_bytes(content)
        texts = [text.replace("\n\n", "\n") for text in documents_of(tmp_path / name, "cc-news")]
        assert texts == [ENGLISH_ARTICLE, reversed_article]
    until = ReaderOptions(last_date="2017-12-31")
    assert len(documents_of(tmp_path / "a.warc.gz", "cc-news", until)) == 1
    assert left_out(tmp_path / "a.warc.gz", "cc-news", until) == ["outside the dates"]
    assert len(documents_of(tmp_path / "a.warc.gz", "cc-news", ReaderOptions(first_date="2018-06-01"))) == 1
    assert len(documents_of(tmp_path / "a.warc.gz", "cc-news", ReaderOptions("2017-03-02", "2018-05-31"))) == 0


def test_openwebtext_yields_every_text_of_its_archives(tmp_path):
    archive, texts = open_web_text(), ["One.\n\nStill one.", "Zwei, żółw.", "Three.", "Four."]
    (tmp_path / "owt.tar").write_bytes(archive)
    (tmp_path / "owt.tar.xz").write_bytes(lzma.compress(archive))
    (tmp_path / "subset00_data.xz").write_bytes(lzma.compress(tar_of({"a.txt": b"One.\n\nStill one."})))
    assert documents_of(tmp_path / "owt.tar", "openwebtext") == texts
    assert documents_of(tmp_path / "owt.tar.xz", "openwebtext") == texts
    assert documents_of(tmp_path, "openwebtext") == [*texts, *texts, texts[0]]


def test_parquet_is_known_by_its_ending(tmp_path):
    pytest.importorskip("pyarrow")
    write_parquet(tmp_path / "a.parquet", ["one\n\n\n\ntwo", "three", "żółw"])
    assert documents_of(tmp_path / "a.parquet") == ["one\n\ntwo", "three", "żółw"]


def test_every_compression_is_known_by_ending_or_content(tmp_path):
    zstd = pytest.importorskip("backports.zstd")
    text = make_text(20)
    (tmp_path / "a.txt").write_text(text)
    expected = documents_of(tmp_path / "a.txt")
    for ending, compress in (("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zst", zstd.compress)):
        for name in (f"a.txt.{ending}", f"{ending}.txt"):
            (tmp_path / name).write_bytes(compress(text.encode()))
            assert documents_of(tmp_path / name) == expected


def test_stories_reads_archives_lines_and_text(tmp_path):
    pytest.importorskip("warcio"), pytest.importorskip("py3langid")
    (tmp_path / "questions.jsonl").write_text(json.dumps({"text": "The trophy does not fit."}) + "\n")
    (tmp_path / "a.warc.wet.gz").write_bytes(wet([ENGLISH_ARTICLE, GERMAN_ARTICLE]))
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "A story."}) + "\n")
    (tmp_path / "c.txt").write_text("One.\n\n\nTwo.\n")
    options = ReaderOptions(queries_file=str(tmp_path / "questions.jsonl"), threshold=0.1)
    sources = [find_source(str(tmp_path / name), "stories", options) for name in ("a.warc.wet.gz", "b.jsonl", "c.txt")]
    texts = [piece.text.replace("\n\n", "\n") for source in sources for piece in read_pieces(source)]
    assert texts == [ENGLISH_ARTICLE, "A story.", "One.", "Two."]


def test_similarity_is_the_weighted_mean_of_f1_over_ngrams():
    similarity = Similarity(["The cat sat down."])
    assert similarity("the CAT sat down") == 1.0
    assert similarity("Nothing alike!") == similarity("") == 0.0
    # Two of its three words, one of its two bigrams, none longer; the question has 4, 3, 2 and 1 n-grams.
    assert similarity("the cat runs") == pytest.approx((1 * 2 * 2 / (3 + 4) + 2 * 2 * 1 / (2 + 3)) / 10)


def test_the_threshold_of_a_share_keeps_that_share():
    counts = SimilarityCounts()
    counts.add([i / 1000 for i in range(500)])
    counts.add([i / 1000 for i in range(500, 1000)])
    assert sum(i / 1000 >= counts.threshold(0.1) for i in range(1000)) == 100
    nothing_alike = SimilarityCounts()
    nothing_alike.add([0.0] * 10)
    assert nothing_alike.threshold(0.5) > 0


@pytest.mark.parametrize(
    ("content", "message"), [("", "no question"), ('{"body": "x"}\n', "none of the fields"), ("{", "not JSON")]
)
def test_bad_questions_are_refused(tmp_path, content, message):
    (tmp_path / "q.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        read_questions(tmp_path / "q.jsonl")


def test_a_folder_without_files_of_its_reader_and_stories_without_questions_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no file of the reader wikipedia in it \(.xml"):
        find_source(str(tmp_path), "wikipedia")
    with pytest.raises(DataError, match="--queries FILE"):
        find_source(str(tmp_path), "stories")


def test_a_piece_is_never_longer_than_asked_but_for_one_paragraph(tmp_path):
    pytest.importorskip("pyarrow")
    write_parquet(tmp_path / "a.parquet", ["\n\n".join(["x" * 90] * 50), "short"])
    pieces = list(read_pieces(find_source(str(tmp_path / "a.parquet")), piece_chars=1000))
    assert all(len(piece.text) <= 1000 + 50 for piece in pieces)
    assert [piece.starts_document for piece in pieces].count(True) == 2 and pieces[-1] == Piece("short", True)


