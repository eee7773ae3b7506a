"""What parts documents in plain text: chosen, or found where it is certain; a file that is one document is said to be so."""

import json
import signal

import pytest

from robustbert.config import ConfigError, CorpusConfig, DataConfig
from robustbert.config.sections import TokenizerSource, TrainTokenizerConfig
from robustbert.data.corpus import IndexedCorpus, corpus_file, read_manifest
from robustbert.data.errors import DataError
from robustbert.data.preparation import indexing, preprocess
from robustbert.data.preparation.indexing import prepare_corpus
from robustbert.data.prepare import prepare_run
from robustbert.data.text.readers import find_source, read_pieces, read_records, take_shard
from robustbert.data.text.records import ReaderOptions, Remark
from robustbert.data.tokenizer import load_tokenizer
from tests.data.conftest import make_text
from tests.data.corpus_files import wikipedia_xml

REPORTS = [[f"Report {i} starts here.", f"It speaks of {i}.", "It ends, at last."] for i in range(8)]
# BERT's input (google-research/bert, README: one sentence a line, blank lines between documents); fairseq's and CC-100's too.
BERT = "\n\n".join("\n".join(report) for report in REPORTS) + "\n"
CC_100 = "\n\n".join(f"Headline of the news {i}\n{' '.join(REPORTS[i])}\nThey said so, and left.\nIs it so?" for i in range(8))
HARD_WRAPPED = "\n\n".join("A paragraph that is broken\nwhere the line is full and\nthat ends here." for _ in range(8))
ONE_LINE_A_PARAGRAPH = "\n\n".join(" ".join(report) for report in REPORTS)
VERSE = "\n\n".join("The first of four,\nThe second line;\nThe third goes on\nAnd the last one ends." for _ in range(8))
# WikiText-103 (wiki.train.tokens): an article's title has one mark on each side, a section's has more; a line may look alike.
WIKITEXT = (
    " \n = A title = \n \n It has 3 = 3 paragraphs . \n And a line . \n \n \n = = A section = = \n \n Text . \n = not one = \n \n"
    " = Another = \n \n Some text . \n \n = = = Deep = = = \n \n More . \n"
)


def source_of(folder, text, documents=None, name="a.txt"):
    (folder / name).write_text(text)
    return find_source(str(folder / name), None, ReaderOptions(documents=documents))


def documents_of(source):
    return [piece.text for piece in read_pieces(source)]


@pytest.mark.parametrize(
    ("text", "layout", "num_documents"),
    [
        (BERT, "blank-line", 8),
        (BERT.replace("\n", "\r\n"), "blank-line", 8),
        (BERT.replace("\n\n", "\n \n"), "blank-line", 8),
        (CC_100, "blank-line", 8),
        (WIKITEXT, "wikitext", 2),
        (make_text(20), None, 20),
        (BERT + "\n\n\nAnother.", None, 2),
        (HARD_WRAPPED, None, 1),
        (ONE_LINE_A_PARAGRAPH, None, 1),
        (VERSE, None, 1),
        ("One line.\nAnother line.\nA third.\nA fourth.\n", None, 1),
        ("= A title of AsciiDoc =\n\nText.\n", None, 1),
    ],
    ids="BERT Windows blanks CC-100 WikiText two two-later wrapped unwrapped verse lines AsciiDoc".split(),
)
def test_a_layout_is_found_where_it_is_certain_and_else_two_blank_lines_part_documents(tmp_path, text, layout, num_documents):
    source = source_of(tmp_path, text)
    assert source.options.documents == layout  # None: the default, two-blank-lines
    assert len(documents_of(source)) == num_documents


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("two-blank-lines", ["a\nb\n\nc", "= d =\n\ne"]),
        ("blank-line", ["a\nb", "c", "= d =", "e"]),
        ("line", ["a", "b", "c", "= d =", "e"]),
        ("wikitext", ["a\nb\n\nc", "= d =\n\ne"]),
    ],
)
def test_every_layout_can_be_chosen(tmp_path, layout, expected):
    source = source_of(tmp_path, "a\nb\n\nc\n\n\n= d =\n\ne\n", layout)
    assert documents_of(source) == expected


def test_wikitext_keeps_sections_and_lines_together(tmp_path):
    first, second = documents_of(source_of(tmp_path, WIKITEXT))
    assert first.strip().startswith("= A title =") and "= = A section = =" in first and first.endswith("Text . \n = not one = ")
    assert second.strip().startswith("= Another =") and second.endswith("More . ")


def test_wikitext_2_has_its_60_articles(shared_data):
    # The validation split of WikiText-2 has 60 articles (Merity et al., 2016, table 1).
    source = find_source(str(shared_data / "text" / "wikitext-2-valid.txt"))
    pieces = list(read_pieces(source))
    assert source.options.documents == "wikitext" and sum(piece.starts_document for piece in pieces) == 60


def test_the_cases_of_one_blank_line_and_of_other_endings_have_40_documents(shared_data):
    cases = shared_data.parent / "cases"
    if not cases.is_dir():
        pytest.skip("the cases are not beside the shared data")
    for name in (
        "one_blank_line_between_documents/bert_layout.txt",
        "jsonl_with_other_ending/part-00000.json.gz",
        "jsonl_with_other_ending/part.json",
        "jsonl_with_other_ending/array.json",
        "mixed_glob/data/*",
        "prose_reader_on_other_formats/table.csv",
    ):
        documents = documents_of(find_source(str(cases / name)))
        assert len(documents) == 40 and documents[0].startswith("Report 0 starts here.") and "{" not in "".join(documents), name


def test_files_of_one_pattern_have_one_layout_found_in_all_of_them(tmp_path):
    source_of(tmp_path, BERT, name="a.txt")
    source_of(tmp_path, "Short.\n", name="b.txt")
    assert find_source(str(tmp_path / "*.txt")).options.documents == "blank-line"
    source_of(tmp_path, make_text(5), name="c.txt")  # two blank lines in one of them: they part documents in all
    assert find_source(str(tmp_path / "*.txt")).options.documents is None
    parts = take_shard([find_source(str(tmp_path / "*.txt"))], 0, 3)
    assert [path.name for path in parts[0].files] == ["a.txt"] and parts[0].options.documents is None


@pytest.fixture(autouse=True)
def keep_signals():
    handler = signal.getsignal(signal.SIGTERM)  # the command sets its own
    yield
    signal.signal(signal.SIGTERM, handler)


def run(capsys, *arguments):
    code = preprocess.main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_the_command_says_how_it_took_the_files_and_that_one_is_a_single_document(tmp_path, tokenizer_dir, capsys):
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(["A paragraph of text."] * 20))
    options = ["--input", path, "--tokenizer", tokenizer_dir, "--output", tmp_path / "out"]
    code, out, err = run(capsys, *options)
    assert code == 0 and "a.txt: plain text, two blank lines part documents" in out and "1 documents" in out
    assert len(err.splitlines()) == 1 and "a.txt: is one document of 20 paragraphs" in err and "--documents blank-line" in err
    assert read_manifest(tmp_path / "out").remarks["count"] == 1
    assert "is one document" in read_manifest(tmp_path / "out").remarks["examples"][0]
    code, out, err = run(capsys, *options, "--documents", "blank-line", "--overwrite")
    assert code == 0 and "20 documents" in out and err == "" and read_manifest(tmp_path / "out").remarks == {}
    code, out, err = run(capsys, *options, "--documents", "blank-line")
    assert "already prepared, 20 documents" in out
    assert run(capsys, *options)[0] == 2  # in another layout it is another corpus
    path.write_text(BERT)
    code, out, _ = run(capsys, *options, "--reader", "plain", "--overwrite")
    assert code == 0 and "a.txt: plain text, one blank line parts documents" in out and "8 documents" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reader", "jsonl", "--documents", "line"], "--documents says what parts documents in plain text"),
        (["--reader", "books", "--text-field", "x"], "--text-field goes with --reader jsonl, json, csv, tsv, parquet, arrow, or auto"),
    ],
)
def test_options_of_other_readers_are_refused(tmp_path, tokenizer_dir, capsys, options, message):
    (tmp_path / "a.txt").write_text("One.")
    arguments = ["--input", tmp_path / "a.txt", "--tokenizer", tokenizer_dir, "--output", tmp_path / "out", *options]
    code, _, err = run(capsys, *arguments)
    assert code == 2 and message in err


def test_keys_of_text_are_refused_beside_indexed_data():
    for key in ({"documents": "line"}, {"text_field": "body"}, {"reader": "csv"}):
        with pytest.raises(ConfigError, match=f"`{next(iter(key))}` goes with `text`, not with `path`"):
            CorpusConfig(path="data/books", **key)
    CorpusConfig(text="a.txt", reader="auto", documents="blank-line", text_field="body")


def mixed_files(folder):
    (folder / "a.txt").write_text(make_text(40, seed=1))
    (folder / "b.json").write_text("".join(json.dumps({"text": text}) + "\n" for text in make_text(40, seed=2).split("\n\n\n")))
    (folder / "c.csv").write_text("id,text\n" + "".join(f'{i},"Row {i}, of the table."\n' for i in range(40)))
    (folder / "d.txt").write_text(make_text(40, seed=3))


def test_mixed_files_give_the_same_bytes_for_any_number_of_workers_and_parts_that_are_the_whole(
    tmp_path, tokenizer, tokenizer_dir, monkeypatch
):
    monkeypatch.setattr(indexing, "_MIN_BYTES_PER_WORKER", 1)
    monkeypatch.setattr(indexing, "_CHUNK_CHARS", 3000)
    (tmp_path / "text").mkdir()
    mixed_files(tmp_path / "text")
    source = find_source(str(tmp_path / "text" / "*"))
    for num_workers in (1, 2):
        prepare_corpus([source], tokenizer, tokenizer_dir, tmp_path / f"out{num_workers}" / "c", num_workers)
    for ending in ("bin", "idx", "json"):
        one, two = (corpus_file(tmp_path / f"out{n}" / "c", ending).read_bytes() for n in (1, 2))
        assert one == two
    whole = IndexedCorpus(tmp_path / "out1" / "c")
    assert whole.num_documents == 160
    for count in (3, 5):  # by files, and by documents
        parts = []
        for index in range(count):
            prepare_corpus(take_shard([source], index, count), tokenizer, tokenizer_dir, tmp_path / f"{count}" / f"p{index}")
            parts.append(IndexedCorpus(tmp_path / f"{count}" / f"p{index}"))
        assert sum(part.num_tokens for part in parts) == whole.num_tokens and sum(part.num_documents for part in parts) == 160


def test_a_run_reads_the_layout_and_the_field_of_its_configuration_and_prepares_again_if_they_change(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(f"Paragraph {i} of a text." for i in range(30)))
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"content": f"Document {i}."}) + "\n" for i in range(30)))

    def documents(lines, **options):
        plain = CorpusConfig(text=str(tmp_path / "a.txt"), **options)
        corpora = (plain, CorpusConfig(text=str(tmp_path / "b.jsonl"), text_field="content"))
        config = DataConfig(TokenizerSource(TrainTokenizerConfig(280)), corpora, sequence_length=16, prepare_workers=1)
        prepared = prepare_run(config, tmp_path / "data", report=lines.append)
        return [sum(part.num_documents for part in corpus.open_parts(load_tokenizer(prepared.tokenizer_dir))) for corpus in prepared.train]

    first, again, other = [], [], []
    assert documents(first) == [1, 30]
    assert any("is one document of 30 paragraphs" in line for line in first)
    assert any("b.jsonl: JSON lines, text in `content`" in line for line in first)
    assert documents(again) == [1, 30] and again == []
    assert documents(other, documents="line") == [30, 30] and not any("is one document" in line for line in other)


def test_a_source_that_was_prepared_before_readers_were_found_by_content_is_still_the_same(tmp_path):
    # Files of one reader in the default layout are recorded as ever: what was prepared of them is not prepared again.
    identity = source_of(tmp_path, make_text(5)).identity()
    assert identity.keys() == {"text", "reader", "files", "python"} and identity["reader"] == "plain"
    (tmp_path / "dump").write_text(wikipedia_xml())
    assert find_source(str(tmp_path / "dump")).identity()["reader"] == "wikipedia"


def test_skipped_files_of_no_reader_are_counted(tmp_path, tokenizer_dir, capsys):
    (tmp_path / "a.txt").write_text("Good text.")
    (tmp_path / "b.txt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    options = ["--input", tmp_path / "*.txt", "--tokenizer", tokenizer_dir, "--output", tmp_path / "out"]
    code, _, err = run(capsys, *options)
    assert code == 2 and "b.txt: is a picture, not text" in err
    code, out, err = run(capsys, *options, "--on-bad-input", "skip")
    assert code == 0 and "skipped: " in err and "bad input: 1" in out and "b.txt: not taken: a picture" in out
    assert read_manifest(tmp_path / "out").not_taken["bad_input"] == 1
    with pytest.raises(DataError, match="is a picture"):
        find_source(str(tmp_path / "b.txt"))


@pytest.mark.parametrize("separator", ["{}\n<|endoftext|>\n", "{}\n\n<|endoftext|>\n\n"])
def test_a_line_of_gpt2s_end_of_text_parts_documents_and_is_no_text(tmp_path, separator):
    """TinyStories and GPT-2's dumps: stories of several paragraphs, and a line `<|endoftext|>` between them."""
    stories = [f"Once there was a fox, number {i}.\n\nIt ran away. Then it slept." for i in range(12)]
    (tmp_path / "stories.txt").write_text("".join(map(separator.format, stories)))
    source = find_source(str(tmp_path / "stories.txt"))
    pieces = list(read_pieces(source))
    assert [piece.text.split("\n")[0] for piece in pieces] == [story.split("\n")[0] for story in stories]
    assert not any("endoftext" in piece.text for piece in pieces)


def test_a_file_of_many_sentences_a_line_that_is_one_document_is_told(tmp_path):
    (tmp_path / "lines.txt").write_text("".join(f"Report {i} starts here. It ends with this line.\n" for i in range(40)))
    (tmp_path / "wrapped.txt").write_text("".join(f"of lines that are wrapped, number {i}\n" for i in range(40)))
    for name, told in (("lines", 1), ("wrapped", 0)):
        records = [record for _, record in read_records([find_source(str(tmp_path / f"{name}.txt"))], [10**6])]
        remarks = [record.message for record in records if type(record) is Remark]
        assert len(remarks) == told and all("one document of 40 lines" in text and "if every line is one: line" in text for text in remarks)
