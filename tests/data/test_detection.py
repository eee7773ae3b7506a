"""A file is read as what it holds, whatever its name, or refused in one line that says what to do."""

import gzip
import json
import zipfile

import pytest

from robustbert.data.errors import DataError
from robustbert.data.text.corpora import json_values
from robustbert.data.text.corpora.stories import read_questions
from robustbert.data.text.readers import find_source, read_pieces, read_records
from robustbert.data.text.records import ReaderOptions
from tests.data.conftest import make_text
from tests.data.corpus_files import open_web_text, warc, write_dump, write_parquet

DOCUMENTS = ["One report. It is short.", "Another one, with a comma, and “quotes”."]


def lines_of(field="text", **more):
    return "".join(json.dumps({**more, field: text}) + "\n" for text in DOCUMENTS)


# As the data sets are published, field by field; the fields' order is theirs.
C4 = lines_of(timestamp="2019-04-25T12:57:54Z", url="https://example.com/a")  # allenai/c4, en/c4-train.*.json.gz
DOLMA = "".join(  # allenai/dolma v1.7, *.json.gz
    json.dumps({"added": "2024-01-01", "created": "2020-01-01", "id": "a", "source": "cc", "text": text, "metadata": {"p": 1}})
    + "\n"
    for text in DOCUMENTS
)
RED_PAJAMA = lines_of(meta={"timestamp": "2023-03-28", "language": "en"}, red_pajama_subset="arxiv")  # RedPajama-Data-1T
OSCAR = lines_of("content", warc_headers={"warc-type": "conversion"}, metadata={"identification": {"label": "en"}})  # 22.01
PRETTY = "".join(json.dumps({"id": 1, "text": text}, indent=2) + "\n" for text in DOCUMENTS)  # jq . FILE
TABLE = 'id,text\n0,One report. It is short.\n1,"Another one, with a comma, and “quotes”."\n'
# A table as pandas' to_csv(sep="\t") writes it: what holds a quote is quoted, with the quote twice.
QUOTED_TSV = 'text\tid\nOne report. It is short.\t0\n"Another ""one""\nof two lines."\t1\n'
WIKI_00 = (  # WikiExtractor 3.0.6
    '<doc id="12" url="?curid=12" title="AT&amp;T "Q"">\nAT&amp;T "Q"\n\nAT&amp;T is a company.\nHistory.\nIt began.\n\n</doc>\n'
    '<doc id="13" url="?curid=13" title="Dog">\nDog\n\nThe dog is a pet.\n\n</doc>\n'
)


def write(folder, name, content):
    content = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return str(folder / name)


def documents_of(text, reader=None, **options):
    pieces = list(read_pieces(find_source(text, reader, ReaderOptions(**options))))
    assert all(piece.starts_document for piece in pieces)
    return [piece.text for piece in pieces]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c4-train.00000-of-01024.json.gz", C4),
        ("cc_en_head-0000.json.gz", DOLMA),
        ("arxiv.txt", RED_PAJAMA),
        ("no_ending", lines_of()),
        ("one_line_without_end.json", lines_of().rstrip("\n")),
        ("byte_order_mark.jsonl", "\ufeff" + lines_of()),
        ("two_files_in_one.jsonl", "".join("\ufeff" + line + "\n" for line in lines_of().splitlines())),
        ("windows.jsonl", lines_of().replace("\n", "\r\n")),
        ("array.json", json.dumps([{"text": text} for text in DOCUMENTS])),
        ("array.txt", "\ufeff\n" + json.dumps([{"text": text} for text in DOCUMENTS], indent=1)),
        ("array_of_strings.json", json.dumps(DOCUMENTS)),
        ("array.jsonl", json.dumps([{"text": text} for text in DOCUMENTS])),
        ("pretty.json", PRETTY),
        ("table.csv", TABLE),
        ("excel.csv", "\ufeff" + TABLE.replace("\n", "\r\n")),
        ("semicolons.csv", TABLE.replace("0,", "0;").replace("1,", "1;").replace("d,t", "d;t")),
        ("table_by_content.txt", TABLE),
        ("table.tsv.gz", "text\tid\n" + "".join(f"{text}\t1\n" for text in DOCUMENTS)),
        ("one_column.csv", 'text\n"' + '"\n"'.join(DOCUMENTS) + '"\n'),
        ("prose.jsonl.txt", "\n\n\n".join(DOCUMENTS)),
    ],
)
def test_the_content_chooses_the_reader(tmp_path, name, content):
    assert documents_of(write(tmp_path, name, content)) == DOCUMENTS


@pytest.mark.parametrize("separators", [("[", ", ", "]"), ("", "\n", "\n")], ids=["array", "lines"])
def test_documents_longer_than_what_is_looked_at_are_read_whole(tmp_path, separators):
    documents = ["żółw " * 40_000 + "end.", "Another."]
    begin, between, end = separators
    content = begin + between.join(json.dumps({"text": text}, ensure_ascii=False) for text in documents) + end
    pieces = list(read_pieces(find_source(write(tmp_path, "part.json.gz", content)), piece_chars=1 << 20))
    assert [piece.text for piece in pieces] == documents


def test_one_file_s_ending_decides_nothing_for_the_others_of_a_pattern(tmp_path):
    pytest.importorskip("pyarrow")
    write(tmp_path, "a.txt", "\n\n\n".join(DOCUMENTS))
    write(tmp_path, "b.jsonl", lines_of())
    write(tmp_path, "c.json.gz", C4)
    write(tmp_path, "d.csv", TABLE)
    write_parquet(tmp_path / "e", DOCUMENTS)
    source = find_source(str(tmp_path / "*"))
    assert documents_of(str(tmp_path / "*")) == DOCUMENTS * 5
    assert source.identity()["reader"] == "auto" and source.identity()["readers"] == ["plain", "jsonl", "jsonl", "csv", "parquet"]
    assert len(source.in_words()) == 4 and "b.jsonl and 1 more: JSON lines" in source.in_words()[1]


def test_a_dump_and_wikiextractor_s_output_are_taken_without_a_reader(tmp_path):
    pytest.importorskip("mwparserfromhell")
    write_dump(tmp_path / "pages.bz2")
    assert documents_of(str(tmp_path / "pages.bz2"))[1] == "The dog is a pet.\n\nIt barks."
    # WikiExtractor 3.0.6, run on a dump: it escapes the text and both titles, and writes a paragraph a line.
    assert documents_of(write(tmp_path, "wiki_00", WIKI_00)) == [
        "AT&T is a company.\n\nHistory.\n\nIt began.",
        "The dog is a pet.",
    ]
    # With --json it escapes as well: read as JSON lines, `&amp;` would be trained on.
    article = {"id": "12", "revid": "3", "url": "?curid=12", "title": "AT&amp;T", "text": "AT&amp;T is one.\nHistory.\n3 &lt; 4."}
    assert documents_of(write(tmp_path, "wiki_00.json", json.dumps(article) + "\n")) == ["AT&T is one.\n\nHistory.\n\n3 < 4."]
    with pytest.raises(DataError, match="is cut off within the article of line 9"):
        documents_of(write(tmp_path, "wiki_01", WIKI_00[:-8]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("oscar.jsonl", OSCAR, r"line 1 has no text in a field `text` .*metadata.identification.label, content\); .*--text-f"),
        ("squad.json", json.dumps({"version": "1.1", "data": []}), r"its fields: version, data\)"),
        ("squad.json", json.dumps({"version": "1.1", "data": []}, indent=1), r"its fields: version, data\)"),
        ("array.json", json.dumps([{"body": "x"}]), r"its first document has no text in a field `text` \(its fields: body\)"),
        ("python.txt", "".join(f"{{'text': {text!r}}}\n" for text in DOCUMENTS * 2), "is made of objects that are not JSON"),
        ("news.csv", "label,title,body\n1,a,b\n", r"its fields: label, title, body\)"),
        ("sst.txt", "sentence\tlabel\n" + "Some text here .\t1\n" * 5, "a table of 2 columns.*--reader tsv --text-field NAME"),
        ("parallel.txt", "".join(f"The house {i}.\tDas Haus {i}.\n" for i in range(5)), "a table of 2 columns.*--reader plain"),
        ("feed.warc.gz", "WARC/1.0\r\nWARC-Type: warcinfo\r\n\r\n", "a web archive .*--reader cc-news"),
        ("train.bpe", "464 2068 7586\n2061 318\n11 13 7\n", "numbers only .*--reader plain takes it as it is"),
        ("train.de", "das ist ein Wört@@ chen .\nnoch ein Sät@@ z@@ lein\nund ein@@ s\n", "subwords of subword-nmt; .*sed -r"),
        ("train.spm", "▁This ▁is ▁a ▁pie ce .\n▁An other ▁one .\n▁A ▁third .\n", "subwords of SentencePiece"),
        ("page.txt", "\n<!DOCTYPE html>\n<html><body><p>One.</p></body></html>\n", "is an HTML page"),
        ("denied.txt", "<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code></Error>", "is XML"),
        ("gigaword.txt", '<DOC id="A" type="story">\n<TEXT>\n<P>\nSome text.\n</P>\n</TEXT>\n</DOC>\n', "is markup"),
        ("large.json.gz.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
        ("archive.tar", open_web_text(), "a tar archive.*--reader openwebtext"),
        ("report.txt", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "is a PDF.*pdftotext"),
        ("model.bin", bytes(range(256)) * 20, "is binary"),
        ("twice.txt.gz", gzip.compress(b"One."), "gzip inside gzip"),
        ("utf16.txt", "One line.\nAnother.\n".encode("utf-16"), r"not UTF-8: the file is UTF-16; .*iconv -f UTF-16 -t UTF-8"),
        ("utf16le.jsonl", '{"text": "One line."}\n'.encode("utf-16-le"), "iconv -f UTF-16LE -t UTF-8"),
        ("utf16be.csv", "id,text\n1,One line.\n".encode("utf-16-be"), "iconv -f UTF-16BE -t UTF-8"),
        ("utf32.txt", "One line.\n".encode("utf-32"), "iconv -f UTF-32 -t UTF-8"),
    ],
)
def test_what_no_reader_takes_is_refused_with_the_way_out(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message) as error:
        find_source(write(tmp_path, name, content))
    assert str(error.value).startswith(str(tmp_path / name) + ": ") and "\n" not in str(error.value)
    # Skipped it is one bad input, and the other files are read.
    write(tmp_path, "good.txt", "Good.")
    skipping = find_source(str(tmp_path / "*"), skip_bad_input=True)
    assert [piece.text for piece in read_pieces(skipping, skip_bad_input=True)] == ["Good."]


@pytest.mark.parametrize("reader", ["plain", "jsonl", "books"])
def test_what_is_no_text_at_all_is_refused_whatever_the_reader(tmp_path, reader):
    with pytest.raises(DataError, match="git lfs pull"):
        find_source(write(tmp_path, "a.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:4d\n"), reader)
    with pytest.raises(DataError, match="iconv -f UTF-16LE"):
        find_source(write(tmp_path, "a.txt", "One line of text.\n".encode("utf-16-le")), reader)


def test_stories_reads_json_lines_of_any_name_and_refuses_tables(tmp_path):
    questions = write(tmp_path, "questions.jsonl", lines_of())
    options = ReaderOptions(queries_file=questions, threshold=0.1)
    source = find_source(write(tmp_path, "c4.json.gz", C4), "stories", options)
    assert [piece.text for piece in read_pieces(source)] == DOCUMENTS
    assert read_questions(write(tmp_path, "questions.json", lines_of("question"))) == DOCUMENTS
    with pytest.raises(DataError, match="a table .csv.*; --reader stories takes web archives"):
        find_source(write(tmp_path, "table", TABLE), "stories", options)


def test_a_chosen_reader_takes_what_is_only_doubtful(tmp_path):
    numbers = write(tmp_path, "a.txt", "464 2068\n318\n11 13\n")
    assert documents_of(numbers, "plain") == ["464 2068\n318\n11 13"]
    assert documents_of(write(tmp_path, "b.txt", lines_of()), "plain") == [lines_of().rstrip("\n")]


def test_indexed_data_is_not_text(tmp_path, write_corpus):
    # Megatron-LM's and fairseq's .idx begin with MMIDIDX (megatron-core 0.16.1, indexed_dataset.py; fairseq 0.12.2), and a
    # .bin has no magic of its own.
    corpus = write_corpus([[[5, 6, 7]]])
    for ending in ("idx", "bin"):
        with pytest.raises(DataError, match=f"is indexed data, .*`path: {corpus.prefix}`"):
            find_source(f"{corpus.prefix}.{ending}")


def test_compressed_parquet_and_zip_are_refused(tmp_path):
    pytest.importorskip("pyarrow")
    write_parquet(tmp_path / "a", ["One."])
    with pytest.raises(DataError, match="Parquet inside gzip; decompress it"):
        find_source(write(tmp_path, "a.parquet.gz", (tmp_path / "a").read_bytes()))
    with zipfile.ZipFile(tmp_path / "wikitext.zip", "w") as archive:
        archive.writestr("wiki.train.tokens", "x")
    with pytest.raises(DataError, match="a zip archive; unpack it"):
        find_source(str(tmp_path / "wikitext.zip"))


def test_a_web_archive_says_which_readers_there_are(tmp_path):
    pytest.importorskip("warcio")
    (tmp_path / "news").write_bytes(warc())
    with pytest.raises(DataError, match="--reader cc-news"):
        find_source(str(tmp_path / "news"))


def test_what_macos_and_spark_leave_beside_files_is_left_out_with_a_word(tmp_path):
    for name in ("part-0.txt", "part-1.txt"):
        write(tmp_path, name, "One.")
    write(tmp_path, "._part-0.txt", b"\0\5\x16\7\0\2\0\0Mac OS X        ")
    write(tmp_path, "_SUCCESS", "")
    write(tmp_path, ".DS_Store", b"\0\0\0\1Bud1")
    (tmp_path / "below").mkdir()
    source = find_source(str(tmp_path / "*"))
    assert [path.name for path in source.files] == ["part-0.txt", "part-1.txt"]
    assert [path.name for path in source.left_out] == ["_SUCCESS", "below"]  # a pattern does not name hidden files
    assert "_SUCCESS and 1 more: left out" in source.in_words()[-1]
    books = find_source(str(tmp_path), "books")
    assert [path.name for path in books.left_out] == ["._part-0.txt"] and len(books.files) == 2
    with pytest.raises(DataError, match="AppleDouble"):
        find_source(str(tmp_path / "._part-0.txt"))


@pytest.mark.parametrize(
    ("name", "content", "field"),
    [
        ("oscar.jsonl", OSCAR, "content"),
        ("nested.jsonl", "".join(json.dumps({"raw": {"content": text}}) + "\n" for text in DOCUMENTS), "raw.content"),
        ("dotted.jsonl", lines_of("raw.content"), "raw.content"),
        ("array.json", json.dumps([{"body": text} for text in DOCUMENTS], indent=1), "body"),
        ("table.csv", TABLE.replace("text", "review body"), "review body"),
        ("table.txt", "label\tbody\n" + "".join(f"1\t{text}\n" for text in DOCUMENTS), "body"),
    ],
)
def test_the_field_with_the_text_can_be_named(tmp_path, name, content, field):
    assert documents_of(write(tmp_path, name, content), text_field=field) == DOCUMENTS


def test_a_column_of_parquet_can_be_named_one_in_a_struct_too(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"id": [1, 2], "raw": [{"content": text, "kind": "x"} for text in DOCUMENTS]})
    parquet.write_table(table, tmp_path / "a.parquet")
    write_parquet(tmp_path / "b.parquet", DOCUMENTS, "content")
    assert documents_of(str(tmp_path / "a.parquet"), text_field="raw.content") == DOCUMENTS
    assert documents_of(str(tmp_path / "b.parquet"), text_field="content") == DOCUMENTS
    with pytest.raises(DataError, match=r"its fields: id, raw.content, raw.kind\); .*--text-field NAME"):
        documents_of(str(tmp_path / "a.parquet"))


def test_quotes_of_a_tsv_are_quotes_only_where_they_cannot_be_text(tmp_path):
    # pandas and Excel quote; GLUE's files and many others do not: IANA's text/tab-separated-values has no quoting.
    assert documents_of(write(tmp_path, "quoted.tsv", QUOTED_TSV)) == ["One report. It is short.", 'Another "one"\nof two lines.']
    bare = ['"Good" film.', '"It opens, and does not close', 'A "quote', '"All of it."', '"Twice", he said, "in it"']
    rows = "text\tid\n" + "".join(f"{text}\t1\n" for text in bare)
    assert documents_of(write(tmp_path, "bare.tsv", rows)) == bare
    last = "id\ttext\n" + "".join(f"1\t{text}\n" for text in bare) + '2\t"One\nand ""two"""\n3\t"a\tb"\n4\tEnd.\n'
    assert documents_of(write(tmp_path, "last.tsv", last)) == [*bare, 'One\nand "two"', "a\tb", "End."]
    everywhere = '"text"\t"id"\n"One report."\t"1"\n"Another ""one""."\t"2"\n'  # R's write.table, csv.QUOTE_ALL
    assert documents_of(write(tmp_path, "all.tsv", everywhere)) == ["One report.", 'Another "one".']


def test_glue_s_tables_give_a_row_a_line_with_their_quotes(shared_data):
    columns = {"MNLI/dev_matched": "sentence1", "MRPC/train": "#1 String", "SST-2/dev": "sentence", "WNLI/train": "sentence2"}
    for name, field in columns.items():
        path = shared_data / "glue" / f"{name}.tsv"
        header, *rows = [line.split("\t") for line in path.read_text("utf-8-sig").rstrip("\n").split("\n")]
        options = ReaderOptions(text_field=field)
        items = [item for _, item in read_records([find_source(str(path), None, options)], [1000])]
        assert [item.content for item in items] == [row[header.index(field)] for row in rows], name


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", TABLE + "2,a,b\n", "row 4 has 3 columns, the first row has 2"),
        ("a.csv", TABLE + '2,"never closed\n' + "3,x\n" * 5, "row 4 is no row of a table"),
        ("a.json", json.dumps([{"text": "One."}])[:-1], "is cut off: its JSON array does not end after document 1"),
        ("a.json", '[{"text": "One."}, {"text": "Tw', "what follows its document 1 is not JSON, or cut off"),
        ("a.json", '[{"text": "One."}] [1]', "something follows the JSON array"),
        ("a.json", '[{"text": "One."}, {"body": 2}]', r"document 2 has no text in a field `text`"),
        ("a.jsonl", lines_of() + '{"text": "cut off', "line 3 is not JSON"),
    ],
)
def test_what_is_broken_later_in_a_file_is_named_with_its_place(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        documents_of(write(tmp_path, name, content))


def test_an_array_is_read_in_bounded_memory_one_document_after_another(tmp_path, monkeypatch):
    documents = [{"text": f"{i} " + "żółw " * 3000} for i in range(400)]  # 12 MB, read in parts of 256 KiB
    path = write(tmp_path, "a.json", json.dumps(documents, ensure_ascii=False, indent=1))
    sizes, more = [], json_values._Text.more

    def watched(text, num_bytes):
        more(text, num_bytes)
        sizes.append(len(text.content))

    monkeypatch.setattr(json_values._Text, "more", watched)
    assert [piece.text for piece in read_pieces(find_source(path))] == [document["text"] for document in documents]
    assert len(sizes) > 10 and max(sizes) < 1 << 20


def test_prose_of_every_kind_stays_prose(tmp_path):
    for number, text in enumerate(
        (
            make_text(30),
            "\tIndented with a tab.\n\tAnd again so.\n\tAnd a third time.\n",
            "[Illustration: a cat]\n\nThe cat.\n",
            '{\\bf Bold} text of LaTeX.\n\n\n"A quote," he said.\n',
            "1.\n\nThe first chapter.\n\n2.\n\nThe second chapter.\n",
            "Roses are red, violets are blue.\nSugar is sweet, and so are you.\nIt ends, it does.\nIt rhymes, for two.\n",
            "ORCHIDS AND BZh IN A TITLE\n\nText.\n",
            "# Title\n\n* one\n* two\n\n    code = {}\n",
            "PK is a word.\n",
        )
    ):
        assert find_source(write(tmp_path, f"{number}.txt", text)).reader == "plain", text
