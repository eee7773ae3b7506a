"""tools/convert: there and back, checked, and never over something that exists."""

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoTokenizer, RobertaForMaskedLM

from robustbert.convert.convert import ConversionError, convert
from robustbert.data.tokenizer import train_tokenizer
from tests.model.test_roberta import SMALL, random_huggingface

ROOT = Path(__file__).resolve().parents[2]
TEXT = ["The quick brown fox jumps over the lazy dog, and the dog does not mind at all."] * 50


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory) -> Path:
    """A folder of RobertaForMaskedLM with random weights and a tokenizer of its own."""
    folder = tmp_path_factory.mktemp("models") / "theirs"
    tokenizer = train_tokenizer(iter(TEXT), 300)
    tokenizer.save(folder)
    random_huggingface(SMALL).save_pretrained(folder)
    return folder


def test_there_and_back_is_bitwise_equal(hugging_face, tmp_path):
    ours, back = tmp_path / "ours", tmp_path / "back"
    assert convert(hugging_face, "robustbert", ours).max_logit_difference < 1e-4
    assert convert(ours, "huggingface", back).max_logit_difference < 1e-4
    before, after = load_file(hugging_face / "model.safetensors"), load_file(back / "model.safetensors")
    assert all(after[name].equal(tensor) for name, tensor in before.items() if "decoder" not in name)
    model = RobertaForMaskedLM.from_pretrained(back)
    tokenizer = AutoTokenizer.from_pretrained(back)
    assert tokenizer(TEXT[0])["input_ids"] == AutoTokenizer.from_pretrained(hugging_face)(TEXT[0])["input_ids"]
    assert model(**tokenizer(TEXT[0], return_tensors="pt")).logits.isfinite().all()


def test_nothing_is_overwritten(hugging_face, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").write_text("do not touch")
    with pytest.raises(ConversionError, match="exists; nothing is overwritten"):
        convert(hugging_face, "robustbert", tmp_path / "mine")
    assert (tmp_path / "mine" / "precious").read_text() == "do not touch"


def test_a_result_that_differs_is_refused_and_leaves_nothing(hugging_face, tmp_path, monkeypatch):
    ours = tmp_path / "ours"
    convert(hugging_face, "robustbert", ours)
    import robustbert.convert.huggingface as module

    real = module.to_huggingface

    def spoiled(state, config):
        theirs = real(state, config)
        theirs["lm_head.dense.bias"] += 0.5
        return theirs

    monkeypatch.setattr(module, "to_huggingface", spoiled)
    with pytest.raises(ConversionError, match="differ by"):
        convert(ours, "huggingface", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


def run_tool(*arguments):
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "convert", *arguments], capture_output=True, text=True, timeout=120
    )


def test_the_command_answers_a_bad_source_in_one_line(tmp_path):
    done = run_tool(tmp_path / "nowhere", "--to", "huggingface", "--output", tmp_path / "out")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "no such run" in done.stderr
    assert "example" in run_tool("--help").stdout
