"""as_huggingface_folder: any model as a folder that transformers reads, converted once."""

import os
import threading
import time

from robustbert.convert import cache as module
from robustbert.convert.cache import as_huggingface_folder
from robustbert.convert.convert import convert
from robustbert.convert.fairseq import write_fairseq
from robustbert.convert.huggingface import write_huggingface
from robustbert.data.tokenizer import train_tokenizer
from tests.convert.models import PLAIN, TEXT, random_whole


def test_a_hugging_face_folder_is_used_as_it_is(tmp_path):
    write_huggingface(tmp_path / "theirs", random_whole(PLAIN), train_tokenizer(iter(TEXT), 300))
    assert as_huggingface_folder(tmp_path / "theirs", tmp_path / "cache") == tmp_path / "theirs"
    assert not (tmp_path / "cache").exists()


def test_other_models_are_converted_once(tmp_path, monkeypatch):
    write_fairseq(tmp_path / "fairseq", random_whole(PLAIN), train_tokenizer(iter(TEXT), 300), final=tmp_path / "fairseq")
    convert(tmp_path / "fairseq", "robustbert", tmp_path / "robustbert")
    sources = (tmp_path / "fairseq", tmp_path / "robustbert")
    first = [as_huggingface_folder(source, tmp_path / "cache") for source in sources]
    assert all((folder / "config.json").exists() and folder.parent == tmp_path / "cache" for folder in first)
    monkeypatch.setattr(module, "convert", None)  # would fail if it were called
    assert [as_huggingface_folder(source, tmp_path / "cache") for source in sources] == first


def test_another_model_in_the_same_place_is_converted_again(tmp_path, monkeypatch):
    write_fairseq(tmp_path / "fairseq", random_whole(PLAIN), train_tokenizer(iter(TEXT), 300), final=tmp_path / "fairseq")
    asked = []
    monkeypatch.setattr(module, "convert", lambda source, to, output, tokenizer: asked.append(output))
    as_huggingface_folder(tmp_path / "fairseq", tmp_path / "cache")
    os.utime(tmp_path / "fairseq" / "model.pt", (1, 1))
    as_huggingface_folder(tmp_path / "fairseq", tmp_path / "cache")
    assert len(set(asked)) == 2


def test_of_several_that_ask_at_once_one_converts(tmp_path, monkeypatch):
    write_fairseq(tmp_path / "fairseq", random_whole(PLAIN), train_tokenizer(iter(TEXT), 300), final=tmp_path / "fairseq")
    converted = []

    def convert_slowly(source, to, output, tokenizer):
        converted.append(output)
        time.sleep(0.3)
        output.mkdir()

    monkeypatch.setattr(module, "convert", convert_slowly)
    ask = lambda: as_huggingface_folder(tmp_path / "fairseq", tmp_path / "cache")  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(converted) == 1 and converted[0].exists()


def test_a_model_without_a_tokenizer_takes_the_one_that_is_named(tmp_path):
    theirs = tmp_path / "fairseq"
    write_fairseq(theirs, random_whole(PLAIN), train_tokenizer(iter(TEXT), 300), final=theirs)
    (tmp_path / "bpe").mkdir()
    for name in ("encoder.json", "vocab.bpe"):
        (theirs / name).rename(tmp_path / "bpe" / name)
    folder = as_huggingface_folder(theirs, tmp_path / "cache", tmp_path / "bpe")
    assert (folder / "tokenizer.json").exists()
