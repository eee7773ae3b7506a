"""Input that cannot be used is named with its file and place: refused, or counted and left out, as the user chose."""

import bz2
import gzip
import json

import pytest

from robustbert.data.corpus import IndexedCorpus, read_manifest
from robustbert.data.tokenizer import load_tokenizer
from tests.data.conftest import make_text
from tests.data.corpus_files import warc, wikipedia_xml
from tests.data.test_preprocess import run

GOOD = "A good document.\n"


def truncated_gzip(folder):
    (folder / "bad.txt.gz").write_bytes(gzip.compress(make_text(400).encode(), mtime=0)[:-2000])
    return "bad.txt.gz", None, r"bad.txt.gz: damaged or cut-off gzip near byte"


def truncated_warc(folder):
    pytest.importorskip("warcio"), pytest.importorskip("trafilatura"), pytest.importorskip("py3langid")
    (folder / "bad.warc").write_bytes(warc(zipped=False)[:-300])
    return "bad.warc", "cc-news", "bad.warc: "


def truncated_dump(folder):
    pytest.importorskip("mwparserfromhell")
    (folder / "bad.xml.bz2").write_bytes(bz2.compress(wikipedia_xml(50).encode())[:-200])
    return "bad.xml.bz2", "wikipedia", "bad.xml.bz2: damaged or cut-off bzip2 near byte"


def not_utf8(folder):
    (folder / "bad.txt").write_bytes(b"One good line.\nA bad \xe9 line.\nAnother good line.\n")
    return "bad.txt", None, "bad.txt: line 2 (byte 21) is not UTF-8"


def empty_file(folder):
    (folder / "bad.txt").write_bytes(b"")
    return "bad.txt", None, "bad.txt: is empty"


def endless_line(folder):
    with open(folder / "bad.txt", "wb") as file:
        file.write(b"One good line.\n")
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b"\nAnother good line.\n")
    return "bad.txt", None, "bad.txt: line 2 (byte 15) has 100000001 bytes"


def no_json(folder):
    (folder / "bad.jsonl").write_text('{"text": "One."}\n{"text": \n{"title": "Two."}\n{"text": "Three."}\n')
    return "bad.jsonl", None, "bad.jsonl: line 2 is not JSON"


def no_archive(folder):
    (folder / "bad.tar").write_bytes(b"\x1f\x8b" + b"no gzip" * 100)
    return "bad.tar", "openwebtext", "bad.tar: damaged or cut-off archive"


CASES = [truncated_gzip, truncated_warc, truncated_dump, not_utf8, empty_file, endless_line, no_json, no_archive]


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_bad_input_is_refused_or_counted(make, tokenizer_dir, tmp_path):
    bad, reader, message = make(tmp_path)
    # The good document comes in a form that the reader takes, after the bad file.
    good = {"cc-news": "good.warc", "wikipedia": "good.xml", "openwebtext": "good.txt"}.get(reader, "good.txt")
    content = {"cc-news": lambda: warc(zipped=False), "wikipedia": lambda: wikipedia_xml(0).encode()}.get(reader)
    (tmp_path / good).write_bytes(content() if content else GOOD.encode())
    options = ["--tokenizer", tokenizer_dir, "--output", "out/corpus", *(["--reader", reader] if reader else [])]
    refused = run("--input", bad, good, *options, cwd=tmp_path)
    assert refused.returncode == 2 and message in refused.stderr, refused.stderr
    assert len(refused.stderr.splitlines()) == 1 and "--on-bad-input skip" in refused.stderr
    assert not list(tmp_path.glob("out/corpus.json"))
    taken = run("--input", bad, good, *options, "--on-bad-input", "skip", cwd=tmp_path)
    assert taken.returncode == 0, taken.stderr
    assert "Traceback" not in taken.stderr and message in taken.stderr
    assert "bad input: " in taken.stdout  # how many, on the last line
    not_taken = read_manifest(tmp_path / "out/corpus").not_taken
    assert not_taken["bad_input"] == len(taken.stderr.splitlines()) == (2 if make is no_json else 1)
    assert message in not_taken["bad_input_examples"][0]
    corpus, tokenizer = IndexedCorpus(tmp_path / "out/corpus"), load_tokenizer(tokenizer_dir)
    text = tokenizer.decode(corpus.tokens)
    if make in (not_utf8, endless_line):
        assert "One good line." in text and "Another good line." in text
    if make is no_json:
        assert "One." in text and "Three." in text
    last = {"cc-news": "", "wikipedia": "It barks."}.get(reader, "A good document.")
    assert text.rstrip().endswith(last)


def test_a_source_without_a_document_writes_nothing_and_says_so(tokenizer_dir, tmp_path):
    (tmp_path / "blank.txt").write_text("\n \n\n\n")
    (tmp_path / "none.jsonl").write_text(json.dumps({"body": "x"}) + "\n")
    for name, options in (("blank.txt", []), ("none.jsonl", ["--on-bad-input", "skip"])):
        result = run("--input", name, *options, "--tokenizer", tokenizer_dir, "--output", "out/corpus", cwd=tmp_path)
        assert result.returncode == 2 and "holds no text" in result.stderr.splitlines()[-1], result.stderr
        assert name in result.stderr.splitlines()[-1] and "Traceback" not in result.stderr
        assert not [path for path in tmp_path.glob("out/corpus.*") if path.is_file()]
