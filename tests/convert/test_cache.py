"""as_huggingface_folder: any model as a folder that transformers reads, converted once."""

import os

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
    monkeypatch.setattr(module, "convert", lambda source, to, output: asked.append(output))
    as_huggingface_folder(tmp_path / "fairseq", tmp_path / "cache")
    os.utime(tmp_path / "fairseq" / "model.pt", (1, 1))
    as_huggingface_folder(tmp_path / "fairseq", tmp_path / "cache")
    assert len(set(asked)) == 2
