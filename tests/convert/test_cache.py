"""as_huggingface_folder: any model as a folder that transformers reads, converted once."""

from robustbert.convert import cache as module
from robustbert.convert.cache import as_huggingface_folder
from robustbert.convert.convert import convert
from tests.convert.test_convert import hugging_face  # noqa: F401


def test_a_hugging_face_folder_is_used_as_it_is(hugging_face, tmp_path):  # noqa: F811
    assert as_huggingface_folder(hugging_face, tmp_path / "cache") == hugging_face
    assert not (tmp_path / "cache").exists()


def test_a_checkpoint_is_converted_once(hugging_face, tmp_path, monkeypatch):  # noqa: F811
    convert(hugging_face, "robustbert", tmp_path / "ours")
    first = as_huggingface_folder(tmp_path / "ours", tmp_path / "cache")
    assert (first / "config.json").exists() and first.parent == tmp_path / "cache"
    monkeypatch.setattr(module, "convert", None)  # would fail if it were called
    assert as_huggingface_folder(tmp_path / "ours", tmp_path / "cache") == first
