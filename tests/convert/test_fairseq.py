"""fairseq's format: every direction is bitwise there and back, older layouts are read, a bad file is one clear line."""

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from robustbert.config import ModelConfig
from robustbert.convert.convert import ConversionError, convert
from robustbert.convert.fairseq import write_fairseq
from robustbert.convert.fairseq_file import read_model_file
from robustbert.convert.huggingface import read_huggingface, write_huggingface
from robustbert.convert.whole_model import load_checkpoint, one_process_mesh
from robustbert.data.errors import DataError
from robustbert.data.tokenizer import byte_bpe, load_tokenizer, train_tokenizer
from tests.convert.models import PAIRS, PLAIN, TEXT, as_released, copy_of, random_whole


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(iter(TEXT), 300)


@pytest.fixture(scope="module")
def theirs(tokenizer, tmp_path_factory) -> Path:
    """A folder of fairseq's, without token types and next-sentence head."""
    folder = tmp_path_factory.mktemp("models") / "fairseq"
    write_fairseq(folder, random_whole(PLAIN), tokenizer, final=folder)
    return folder


def weights(path: Path, mesh) -> dict[str, torch.Tensor]:
    """The tensors of any format, for comparison."""
    if (path / "model.pt").exists():
        return read_model_file(path / "model.pt")["model"]
    if (path / "model.safetensors").exists():
        return load_file(path / "model.safetensors")
    return load_checkpoint(path, mesh)[0].state


def assert_equal(first: Path, second: Path):
    with one_process_mesh() as mesh:
        before, after = weights(first, mesh), weights(second, mesh)
    assert set(before) == set(after)
    assert all(after[name].equal(tensor) for name, tensor in before.items())


@pytest.mark.parametrize("config", [PLAIN, PAIRS], ids=["plain", "next-sentence"])
def test_every_direction_is_bitwise_there_and_back(config: ModelConfig, tokenizer, tmp_path):
    start = tmp_path / "huggingface"
    write_huggingface(start, random_whole(config), tokenizer)
    way = ("fairseq", "robustbert", "huggingface", "robustbert", "fairseq", "huggingface")
    made = [start]
    for number, to in enumerate(way):
        done = convert(made[-1], to, tmp_path / f"{number}_{to}")
        assert done.max_logit_difference < 1e-4
        made.append(done.output)
    assert_equal(made[0], made[3])  # from Hugging Face through fairseq and robustbert
    assert_equal(made[0], made[6])  # and through robustbert and fairseq
    assert_equal(made[1], made[5])  # from fairseq through robustbert and Hugging Face
    assert_equal(made[2], made[4])  # from robustbert through Hugging Face
    hashes = {load_tokenizer(path / "tokenizer" if "robustbert" in path.name else path).sha256 for path in made}
    assert hashes == {tokenizer.sha256}


def test_what_fairseq_cannot_say_is_told(tokenizer, tmp_path):
    write_huggingface(tmp_path / "pairs", random_whole(PAIRS), tokenizer)
    notes = " ".join(convert(tmp_path / "pairs", "fairseq", tmp_path / "theirs").notes)
    assert "no token types" in notes and "classification head next_sentence" in notes


@pytest.mark.parametrize("old_format", [False, True], ids=["zip", "before-zip"])
def test_the_layout_of_the_release_is_read(theirs, tmp_path, old_format):
    content = read_model_file(theirs / "model.pt")
    released = copy_of(theirs, tmp_path / "released", as_released(content), old_format)
    done = convert(released, "huggingface", tmp_path / "out")
    assert done.max_logit_difference < 1e-4
    assert "float16 weights are widened to fp32, which is exact" in done.notes
    convert(theirs, "huggingface", tmp_path / "expected")
    expected, actual = (load_file(tmp_path / name / "model.safetensors") for name in ("expected", "out"))
    assert all(actual[name].equal(tensor.half().float()) for name, tensor in expected.items())


def test_a_model_file_and_other_heads_are_read(theirs, tmp_path):
    content = read_model_file(theirs / "model.pt")
    for part in ("dense", "out_proj"):
        content["model"] |= {f"classification_heads.mnli.{part}.{kind}": torch.zeros(3) for kind in ("weight", "bias")}
    content["model"]["encoder.sentence_encoder.layers.0.in_proj_weight"] = torch.zeros(96, 32)  # of fairseq's fast path
    copied = copy_of(theirs, tmp_path / "with_head", content)
    done = convert(copied / "model.pt", "huggingface", tmp_path / "out")
    assert "not carried over: the classification head mnli" in done.notes


@pytest.mark.parametrize("module", ["fairseq.meters", "fairseq.logging.meters"])
def test_a_training_checkpoint_with_its_meters_is_read_without_fairseq(theirs, tmp_path, monkeypatch, module):
    """fairseq before 0.9 pickled its meters as objects beside the weights."""
    meters = ModuleType(module)
    meters.AverageMeter = type("AverageMeter", (), {"__module__": module, "__init__": lambda self: setattr(self, "val", 2.5)})
    content = read_model_file(theirs / "model.pt") | {"extra_state": {"train_meters": {"loss": meters.AverageMeter()}}}
    with monkeypatch.context() as patch:
        for name in ("fairseq", "fairseq.logging", module):
            patch.setitem(sys.modules, name, meters if name == module else ModuleType(name))
        training = copy_of(theirs, tmp_path / "training", content)
    assert vars(read_model_file(training / "model.pt")["extra_state"]["train_meters"]["loss"]) == {"val": 2.5}
    done = convert(training, "huggingface", tmp_path / "out")
    assert done.max_logit_difference < 1e-4


class Hostile:
    """Runs a command where it is unpickled."""

    def __init__(self, marker: Path):
        self.command = f"touch {marker}"

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("old_format", [False, True], ids=["zip", "before-zip"])
@pytest.mark.parametrize("place", ["args", "model", "extra"])
def test_a_hostile_pickle_is_refused_and_does_not_run(theirs, tmp_path, place, old_format):
    content = read_model_file(theirs / "model.pt") | {place: Hostile(tmp_path / "it_ran")}
    hostile = copy_of(theirs, tmp_path / "hostile", content, old_format)
    with pytest.raises(ConversionError, match=r"model.pt: refused, for it asks for posix.system") as raised:
        convert(hostile, "huggingface", tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert {path.name for path in tmp_path.iterdir()} == {"hostile"}


def test_a_truncated_file_is_named(theirs, tmp_path):
    cut = copy_of(theirs, tmp_path / "cut")
    whole = (cut / "model.pt").read_bytes()
    (cut / "model.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConversionError, match=r"cut/model.pt: cannot be read .* cut off or damaged") as raised:
        convert(cut, "huggingface", tmp_path / "out")
    assert "\n" not in str(raised.value)


def changed(content: dict, change: str) -> dict:
    model, layer = content["model"], "encoder.sentence_encoder.layers.1"
    if change == "missing":
        del model[f"{layer}.fc1.bias"]
    elif change == "shape":
        model[f"{layer}.fc2.weight"] = torch.zeros(3, 3)
    elif change == "unknown":
        model["encoder.sentence_encoder.segment_embeddings.weight"] = torch.zeros(2, 32)
    elif change == "untied":
        model["encoder.lm_head.weight"] = torch.zeros_like(model["encoder.lm_head.weight"])
    elif change == "prenorm":
        content["cfg"]["model"]["encoder_normalize_before"] = True
    elif change == "no settings":
        content["cfg"] = None
    elif change == "no model":
        del content["model"]
    return content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"model.pt: the tensor encoder.sentence_encoder.layers.1.fc1.bias is missing"),
        ("shape", r"model.pt: the tensor .*layers.1.fc2.weight has the shape \(3, 3\), .* \(32, 64\)"),
        ("unknown", r"model.pt: the tensor .*segment_embeddings.weight belongs to no RoBERTa"),
        ("untied", r"model.pt: encoder.lm_head.weight differs"),
        ("prenorm", r"model.pt: its encoder_normalize_before is True"),
        ("no settings", r"model.pt: has neither `args` nor `cfg.model`"),
        ("no model", r"model.pt: is no checkpoint of fairseq"),
    ],
)
def test_another_model_is_refused_by_name(theirs, tmp_path, change, message):
    other = copy_of(theirs, tmp_path / "other", changed(read_model_file(theirs / "model.pt"), change))
    with pytest.raises(ConversionError, match=message):
        convert(other, "huggingface", tmp_path / "out")


def test_a_dictionary_of_another_size_is_refused(theirs, tmp_path):
    other = copy_of(theirs, tmp_path / "other")
    with open(other / "dict.txt", "a") as file:
        file.write("madeupword0000 0\n")
    with pytest.raises(ConversionError, match=r"dict.txt: 296 tokens, with the five specials 301 ids, but .* has 300"):
        convert(other, "huggingface", tmp_path / "out")


def test_a_dictionary_in_another_order_than_the_tokenizer_is_refused(theirs, tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer")
    other = copy_of(theirs, tmp_path / "other")
    first, second, *rest = (other / "dict.txt").read_text().splitlines(keepends=True)
    (other / "dict.txt").write_text("".join([second, first, *rest]))
    with pytest.raises(DataError, match=r"dict.txt: gives the token .* they belong to different models"):
        convert(other, "huggingface", tmp_path / "out", tokenizer_dir=tmp_path / "tokenizer")


def test_a_wrong_permutation_does_not_pass_the_gate(theirs, tmp_path, monkeypatch):
    right = byte_bpe.dictionary_names
    monkeypatch.setattr(byte_bpe, "dictionary_names", lambda *tokens: list(reversed(right(*tokens))))
    convert(theirs, "huggingface", tmp_path / "ours")
    with pytest.raises(ConversionError, match="the tokenizers of source and result differ"):
        convert(tmp_path / "ours", "fairseq", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_spoiled_weights_do_not_pass_the_gate(theirs, tmp_path, monkeypatch):
    from robustbert.convert import fairseq as module

    right = module.Naming.to_theirs

    def spoiled(naming, state, config):
        names = right(naming, state, config)
        names["encoder.sentence_encoder.layers.0.self_attn.q_proj.weight"] *= 1.5
        return names

    convert(theirs, "robustbert", tmp_path / "ours")
    monkeypatch.setattr(module.Naming, "to_theirs", spoiled)
    with pytest.raises(ConversionError, match="logits of source and result differ by"):
        convert(tmp_path / "ours", "fairseq", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"ours"}


def test_the_text_of_the_user_is_what_is_compared_on(theirs, tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ConversionError, match="empty.txt: holds no text"):
        convert(theirs, "huggingface", tmp_path / "out", text=tmp_path / "empty.txt")
    (tmp_path / "mine.txt").write_text("Здравствуй, мир! " * 40 + "\nA line that names <mask> is left out.\n")
    assert convert(theirs, "huggingface", tmp_path / "out", text=tmp_path / "mine.txt").comparison.on_text < 1e-4


def test_sharded_safetensors_and_half_precision_are_read(tokenizer, tmp_path):
    from transformers import RobertaForMaskedLM

    write_huggingface(tmp_path / "whole", random_whole(PLAIN), tokenizer)
    model = RobertaForMaskedLM.from_pretrained(tmp_path / "whole", dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20kB")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 1
    tokenizer.save(tmp_path / "tokenizer")
    done = convert(tmp_path / "sharded", "fairseq", tmp_path / "out", tokenizer_dir=tmp_path / "tokenizer")
    assert done.max_logit_difference < 1e-4 and "bfloat16 weights are widened to fp32, which is exact" in done.notes
    expected, actual = read_huggingface(tmp_path / "whole")[0], read_huggingface(tmp_path / "sharded")[0]
    assert all(actual.state[name].equal(tensor.bfloat16().float()) for name, tensor in expected.state.items())
    next((tmp_path / "sharded").glob("model-*.safetensors")).unlink()
    with pytest.raises(ConversionError, match="of its 4 files .* is not there"):
        convert(tmp_path / "sharded", "fairseq", tmp_path / "again", tokenizer_dir=tmp_path / "tokenizer")


@pytest.mark.slow
def test_roberta_base_with_the_released_vocabulary(shared_data, tmp_path):
    tokenizer = load_tokenizer(shared_data / "bpe")
    config = ModelConfig(preset="roberta-base", vocab_size=tokenizer.vocab_size)
    write_fairseq(tmp_path / "theirs", random_whole(config, spread=0.02), tokenizer, final=tmp_path / "theirs")
    for name in ("encoder.json", "vocab.bpe"):  # the release has dict.txt alone; fairseq downloads the others
        (tmp_path / "theirs" / name).unlink()
    (tmp_path / "theirs" / "dict.txt").write_bytes((shared_data / "bpe" / "dict.txt").read_bytes())
    done = convert(tmp_path / "theirs", "huggingface", tmp_path / "ours", tokenizer_dir=shared_data / "bpe")
    print(done.comparison)
    assert done.num_parameters == 124_697_433 - 768  # RobertaForMaskedLM's, which has a row of token types
    assert load_tokenizer(tmp_path / "ours").encode("Hello world!") == [31414, 232, 328]
