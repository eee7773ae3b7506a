"""fairseq's checkpoints as they are found: each converts with equal logits, or is refused in one line with the reason.

What is compared with are the logits that an independent reader of fairseq's files gives for the model before it was changed.
"""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import RobertaForMaskedLM

from robustbert.convert.convert import convert
from robustbert.convert.fairseq import write_fairseq
from robustbert.convert.fairseq_file import read_model_file
from robustbert.convert.fairseq_folder import find_model_file
from robustbert.convert.fairseq_plain import PlainFairseqModel
from robustbert.data.tokenizer import train_tokenizer
from tests.convert.models import PLAIN, TEXT, as_released, copy_of, random_whole

TOLERANCE = 1e-5
LAYER = "encoder.sentence_encoder.layers.0"
TOKENS = torch.randint(5, 300, (2, 20), generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """A folder of fairseq 0.12's with random weights, and a text to compare on."""
    folder = tmp_path_factory.mktemp("models") / "plain"
    write_fairseq(folder, random_whole(PLAIN), train_tokenizer(iter(TEXT), 300), final=folder)
    folder.with_name("text.txt").write_text(TEXT[0])
    return folder


def rename(content: dict, change) -> None:
    content["model"] = {change(name): tensor for name, tensor in content["model"].items()}


def cast(content: dict, dtype: torch.dtype) -> None:
    content["model"] = {name: tensor.to(dtype) for name, tensor in content["model"].items()}


def settings(content: dict) -> dict:
    return content["cfg"]["model"]


def release(content):
    content |= as_released(content) | {"cfg": None}


def release_of_large(content):
    """args without sizes: they are the architecture's. Here they are given, under the name of the large one."""
    release(content)
    content["args"].arch = "roberta_large"


def decoder_names(content):
    rename(content, lambda name: name.replace("encoder.", "decoder.", 1).replace("layernorm_embedding", "emb_layer_norm"))


def old_norm_under_encoder(content):
    rename(content, lambda name: name.replace("layernorm_embedding", "emb_layer_norm"))


def args_of_0_9(content):
    model = {key: value for key, value in settings(content).items() if key != "_name"}
    content |= {"args": Namespace(**model, task="masked_lm", max_source_positions=512), "cfg": None}


def namespace_inside_cfg(content):
    """fairseq 0.12 trained from its command line: cfg.model is a Namespace."""
    content["cfg"]["model"] = Namespace(**settings(content))


def classification_heads(content):
    for part, size in (("dense", 32), ("out_proj", 3)):
        content["model"] |= {
            f"classification_heads.mnli.{part}.weight": torch.zeros(size, 32),
            f"classification_heads.mnli.{part}.bias": torch.zeros(size),
        }


def training(content):
    """With Adam's state, fp16's scale, and a validation loss that numpy computed."""
    content["last_optimizer_state"] = {"state": {0: {"step": 7, "exp_avg": torch.zeros(5)}}, "loss_scale": 128.0}
    content["extra_state"] |= {"val_loss": np.float64(2.5), "best": np.float32(2.5)}
    content["extra_state"]["metrics"] = [(0, "loss", "AverageMeter", {"val": 1})]


def without_head(content):
    content["model"] = {name: tensor for name, tensor in content["model"].items() if ".lm_head." not in name}


CONVERTS = {
    "0.12": lambda content: None,
    "the release": release,
    "the release's, large": release_of_large,
    "args of 0.9": args_of_0_9,
    "cfg with a Namespace": namespace_inside_cfg,
    "decoder. and emb_layer_norm": decoder_names,
    "encoder. and emb_layer_norm": old_norm_under_encoder,
    "fp16": lambda content: cast(content, torch.float16),
    "bf16": lambda content: cast(content, torch.bfloat16),
    "classification heads": classification_heads,
    "a training's checkpoint": training,
    "module.": lambda content: rename(content, lambda name: "module." + name),
    "a compiled layer": lambda content: rename(content, lambda name: name.replace("layers.0.", "layers.0._orig_mod.")),
}


@pytest.mark.parametrize("name", CONVERTS)
def test_converts_with_equal_logits(plain, tmp_path, name):
    content = read_model_file(plain / "model.pt")
    before = dict(content["model"])
    CONVERTS[name](content)
    variant = copy_of(plain, tmp_path / "variant", content)
    done = convert(variant, "huggingface", tmp_path / "out", text=plain.with_name("text.txt"))
    dtype = next(iter(content["model"].values())).dtype
    reference = PlainFairseqModel({key: tensor.to(dtype) for key, tensor in before.items()}, PLAIN.num_attention_heads)
    expected = reference.predict_tokens(reference.features(TOKENS))
    with torch.no_grad():
        actual = RobertaForMaskedLM.from_pretrained(done.output).eval()(TOKENS).logits
    assert (actual - expected).abs().max() < TOLERANCE < expected.abs().max()


@pytest.mark.parametrize("mask_is_listed", [False, True])
def test_madeupwords_and_a_listed_mask_keep_their_rows(tmp_path, mask_is_listed):
    """fairseq-preprocess fills dict.txt up to a multiple of 8; <mask> is the last id, whether a line names it or not."""
    whole = random_whole(replace(PLAIN, vocab_size=300))
    tokenizer = train_tokenizer(iter(TEXT), 297)
    write_fairseq(tmp_path / "small", random_whole(replace(PLAIN, vocab_size=297)), tokenizer, final=tmp_path / "small")
    content = read_model_file(tmp_path / "small" / "model.pt")
    words, bias = "encoder.sentence_encoder.embed_tokens.weight", "encoder.lm_head.bias"
    content["model"] |= {
        words: whole.state["embeddings.word_embeddings.weight"][:300].clone(),
        "encoder.lm_head.weight": whole.state["embeddings.word_embeddings.weight"][:300].clone(),
        bias: whole.state["lm_head.bias"][:300].clone(),
    }
    source = copy_of(tmp_path / "small", tmp_path / "source", content)
    with open(source / "dict.txt", "a") as file:
        file.writelines(f"madeupword{i:04d} 0\n" for i in range(3))
        file.write("<mask> 0\n" if mask_is_listed else "")
    (tmp_path / "text.txt").write_text(TEXT[0])
    done = convert(source, "huggingface", tmp_path / "out", text=tmp_path / "text.txt")
    model = RobertaForMaskedLM.from_pretrained(done.output)
    assert model.lm_head.bias.detach().equal(content["model"][bias])
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(done.output).mask_token_id == 299


REFUSED = {
    "pre-LN": (lambda content: settings(content).update(encoder_normalize_before=True), r"encoder_normalize_before is True"),
    "gelu_fast": (lambda content: settings(content).update(activation_fn="gelu_fast"), r"activation_fn is 'gelu_fast'"),
    "untied head": (
        lambda content: content["model"].update({"encoder.lm_head.weight": torch.zeros(300, 32)}),
        r"encoder.lm_head.weight differs",
    ),
    "no head": (without_head, r"without a masked-language-model head .*--new-head"),
    "a layer cut off": (lambda content: content["model"].pop(f"{LAYER}.fc1.weight"), r"layers.0.fc1.weight is missing"),
    "another shape": (
        lambda content: content["model"].update({f"{LAYER}.fc1.bias": torch.zeros(3)}), r"fc1.bias has the shape \(3,\)",
    ),
    "more layers": (lambda content: settings(content).update(encoder_layers=1), r"layers.1\.\S+ belongs to no RoBERTa"),
    "NaN": (
        lambda content: content["model"]["encoder.lm_head.bias"].fill_(float("nan")), r"300 of the \d+ values of lm_head.bias are NaN",
    ),
    "weights alone": (lambda content: content.update(cfg=None), r"has neither `args` nor `cfg.model`"),
    "another kind of model": (
        lambda content: rename(content, lambda name: name.replace("sentence_encoder.", "")),
        r"embed_tokens.weight is missing or no table",
    ),
}  # fmt: skip


def refused(source: Path, out: Path, message: str, **options) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        convert(source, "robustbert", out, **options)
    assert "\n" not in str(raised.value) and str(source) in str(raised.value) and not out.exists()


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_in_one_line(plain, tmp_path, name):
    change, message = REFUSED[name]
    content = read_model_file(plain / "model.pt")
    content["model"] = {key: tensor.clone() for key, tensor in content["model"].items()}
    change(content)
    refused(copy_of(plain, tmp_path / "variant", content), tmp_path / "out", message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "model.pt: is a Git-LFS pointer"),
        ("<html>Sign in</html>", "model.pt: is a web page"),
    ],
)
def test_what_a_failed_download_left_is_named(plain, tmp_path, text, message):
    variant = copy_of(plain, tmp_path / "variant")
    (variant / "model.pt").write_text(text)
    refused(variant, tmp_path / "out", message)


@pytest.mark.parametrize("name", ["model-model_part-0.pt", "checkpoint_last-model_part-1.pt", "checkpoint_best-shard3.pt"])
def test_a_part_of_a_model_is_refused(plain, tmp_path, name):
    variant = copy_of(plain, tmp_path / "variant")
    (variant / "model.pt").rename(variant / name)
    for source in (variant, variant / name):
        refused(source, tmp_path / "out", r"is one process' part of a (tensor-parallel|sharded \(FSDP\)) model")


def test_a_new_head_is_drawn_from_the_seed(plain, tmp_path):
    content = read_model_file(plain / "model.pt")
    before = dict(content["model"])
    without_head(content)
    source = copy_of(plain, tmp_path / "variant", content)
    done = convert(source, "huggingface", tmp_path / "out", text=plain.with_name("text.txt"), head_seed=5)
    assert done.max_logit_difference < TOLERANCE and any("drawn from seed 5" in note for note in done.notes)
    model = RobertaForMaskedLM.from_pretrained(done.output)
    assert model.roberta.encoder.layer[0].output.dense.weight.detach().equal(before[f"{LAYER}.fc2.weight"])
    assert not model.lm_head.dense.weight.detach().equal(before["encoder.lm_head.dense.weight"])
    refused(plain, tmp_path / "no", "leave out --new-head", head_seed=5)


# Which file of a folder


def choice(folder: Path, *names: str) -> tuple[str, list[str]]:
    for name in names:
        (folder / name).touch()
    path, notes = find_model_file(folder)
    return path.name, notes


def test_of_a_training_the_best_checkpoint_is_taken_and_the_others_named(tmp_path):
    chosen, (note,) = choice(tmp_path, "checkpoint_last.pt", "checkpoint_best.pt", "checkpoint_3_1000.pt", "checkpoint2.pt")
    assert chosen == "checkpoint_best.pt"
    assert note.endswith("take it: checkpoint_last.pt, checkpoint_3_1000.pt, checkpoint2.pt") and str(tmp_path) in note


def test_without_a_best_one_the_last_is_taken(tmp_path):
    assert choice(tmp_path, "checkpoint_last.pt", "checkpoint_9_1.pt")[0] == "checkpoint_last.pt"


def test_of_numbered_ones_the_highest_epoch_and_step_is_taken(tmp_path):
    """checkpoint_3_900.pt was saved in epoch 3, checkpoint3.pt at its end; in the alphabet 10 comes before 3."""
    assert choice(tmp_path, "checkpoint_3_900.pt", "checkpoint_10_2000.pt", "checkpoint_10_300.pt")[0] == "checkpoint_10_2000.pt"
    assert choice(tmp_path, "checkpoint10.pt", "optimizer.pt")[0] == "checkpoint10.pt"


def test_a_released_model_comes_first_and_one_alone_needs_no_note(tmp_path):
    assert choice(tmp_path, "model.pt") == ("model.pt", [])
    assert choice(tmp_path, "checkpoint_best.pt")[0] == "model.pt"


def test_a_training_is_converted_from_its_folder(plain, tmp_path):
    variant = copy_of(plain, tmp_path / "variant")
    (variant / "checkpoint_last.pt").write_bytes(b"not the one")
    (variant / "model.pt").rename(variant / "checkpoint_best.pt")
    done = convert(variant, "huggingface", tmp_path / "out", text=plain.with_name("text.txt"))
    assert done.source.path.name == "checkpoint_best.pt" and any("checkpoint_last.pt" in note for note in done.notes)
