"""Models as people have them: what finetuning reads of a Hugging Face folder, and what it refuses instead of guessing."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from robustbert.data.tokenizer import load_tokenizer
from robustbert.finetune.folders import encoder_folder
from robustbert.finetune.models import encoder_with_new_head
from robustbert.finetune.settings import FinetuneError
from robustbert.finetune.task import ModelSource


def build(folder: Path) -> torch.nn.Module:
    from transformers import AutoModelForSequenceClassification

    source = ModelSource(folder, seed=1, dropout=0.1, attention_dropout=0.1, untrained=False)
    return encoder_with_new_head(source, AutoModelForSequenceClassification.from_config)


@pytest.fixture
def copied(tiny_model, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_a_torch_file_gives_the_same_encoder_as_safetensors(copied):
    expected = build(copied).base_model.state_dict()
    torch.save(load_file(copied / "model.safetensors"), copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    actual = build(copied).base_model.state_dict()
    assert all(actual[name].equal(tensor) for name, tensor in expected.items())


class Hostile:
    """Runs a command if it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_hostile_pickle_is_refused_and_does_not_run(copied, tmp_path):
    (copied / "model.safetensors").unlink()
    torch.save({"roberta.embeddings": Hostile(tmp_path / "it_ran")}, copied / "pytorch_model.bin")
    with pytest.raises(FinetuneError, match="transformers cannot read a model there") as raised:
        build(copied)
    assert "\n" not in str(raised.value) and not (tmp_path / "it_ran").exists()


def test_names_of_a_wrapper_are_named_with_the_way_out(copied):
    tensors = {f"module.{name}": tensor for name, tensor in load_file(copied / "model.safetensors").items()}
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FinetuneError, match=r"it has module\.\S+, say; tools/convert reads names"):
        build(copied)


def without_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"):
        (folder / name).unlink(missing_ok=True)


def test_a_model_without_a_tokenizer_is_refused_instead_of_tokenized_with_five_tokens(copied, tmp_path):
    """transformers 5.24.0 makes a tokenizer of five special tokens for a folder that has none, and says nothing."""
    without_tokenizer(copied)
    with pytest.raises(ValueError, match="no tokenizer found beside"):
        encoder_folder(copied, None, tmp_path / "cache")


def test_gpt2s_files_beside_a_model_are_its_tokenizer(copied, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = load_tokenizer(copied)
    without_tokenizer(copied)
    tokenizer.save_for_fairseq(copied)
    folder = encoder_folder(copied, None, tmp_path / "cache")
    assert folder.parent == tmp_path / "cache"
    assert AutoTokenizer.from_pretrained(folder)("the film")["input_ids"][1:-1] == tokenizer.encode("the film")


def test_a_tokenizer_that_is_named_is_the_one_that_is_taken(copied, tmp_path):
    tokenizer = load_tokenizer(copied)
    tokenizer.save(tmp_path / "named")
    without_tokenizer(copied)
    folder = encoder_folder(copied, None, tmp_path / "cache", tokenizer=tmp_path / "named")
    assert load_tokenizer(folder).sha256 == tokenizer.sha256
