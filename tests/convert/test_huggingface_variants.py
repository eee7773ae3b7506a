"""Hugging Face checkpoints as they are found: each converts with equal logits, or is refused in one line with the reason.

What is compared with are the logits that transformers gives for the model before it was changed; so a variant that is read
wrongly cannot pass by being read wrongly twice.
"""

import json
import os
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import RobertaForMaskedLM

from robustbert.convert.convert import convert
from robustbert.convert.huggingface import write_huggingface
from robustbert.data.tokenizer import train_tokenizer
from tests.convert.models import PLAIN, TEXT, random_whole

TOLERANCE = 1e-5
WORDS, HEAD_BIAS = "roberta.embeddings.word_embeddings.weight", "lm_head.bias"
TOKENS = torch.randint(5, 300, (2, 20), generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """What transformers 5 writes for a small RoBERTa with random weights, and a text to compare on."""
    folder = tmp_path_factory.mktemp("models") / "plain"
    write_huggingface(folder, random_whole(PLAIN), train_tokenizer(iter(TEXT), 300))
    folder.with_name("text.txt").write_text(TEXT[0])
    return folder


class Variant:
    """A folder that begins as the plain one; its configuration and tensors are changed and saved."""

    def __init__(self, plain: Path, folder: Path):
        folder.mkdir()
        self.folder, self.config, self.tensors = folder, json.loads((plain / "config.json").read_text()), None
        self.tensors = load_file(plain / "model.safetensors")
        for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
            (folder / name).write_bytes((plain / name).read_bytes())

    def save(self, form: str = "safetensors") -> Path:
        """form: safetensors, bin (torch.save), old bin (before torch 1.6), or sharded, sharded bin."""
        (self.folder / "config.json").write_text(json.dumps(self.config))
        names = sorted(self.tensors)
        if form == "safetensors":
            save_file(self.tensors, self.folder / "model.safetensors", metadata={"format": "pt"})
        elif form in ("bin", "old bin"):
            torch.save(self.tensors, self.folder / "pytorch_model.bin", _use_new_zipfile_serialization=form == "bin")
        else:
            stem, ending = ("pytorch_model", "bin") if "bin" in form else ("model", "safetensors")
            halves = {f"{stem}-0000{i + 1}-of-00002.{ending}": names[i::2] for i in range(2)}
            for file, part in halves.items():
                (torch.save if "bin" in form else save_file)({name: self.tensors[name] for name in part}, self.folder / file)
            index = {"metadata": {}, "weight_map": {name: file for file, part in halves.items() for name in part}}
            (self.folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index))
        return self.folder

    def rename(self, change) -> None:
        self.tensors = {change(name): tensor for name, tensor in self.tensors.items()}

    def cast(self, dtype: torch.dtype) -> None:
        self.tensors = {name: tensor.to(dtype) for name, tensor in self.tensors.items()}


def gamma_beta(v):
    v.rename(lambda name: name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"))


def gamma_beta_in_the_head(v):
    gamma_beta(v)
    v.rename(lambda name: name.replace("norm.weight", "norm.gamma").replace("norm.bias", "norm.beta"))


def prefix_and_wrappers(v):
    v.rename(lambda name: "module._orig_mod." + name.replace("layer.1.", "layer.1._checkpoint_wrapped_module."))


def decoder_names_alone(v):
    v.rename(lambda name: {WORDS: "lm_head.decoder.weight", HEAD_BIAS: "lm_head.decoder.bias"}.get(name, name))


def both_names_of_what_is_tied(v):
    v.tensors |= {"lm_head.decoder.weight": v.tensors[WORDS].clone(), "lm_head.decoder.bias": v.tensors[HEAD_BIAS].clone()}
    v.config["tie_word_embeddings"] = False


def buffers_and_a_pooler(v):
    v.tensors["roberta.embeddings.position_ids"] = torch.arange(42)[None]
    v.tensors |= {"roberta.pooler.dense.weight": torch.zeros(32, 32), "roberta.pooler.dense.bias": torch.zeros(32)}


def no_model_type(v):
    del v.config["model_type"]


def left_to_defaults(v):
    """A configuration of transformers 2: no model_type, and what has RoBERTa's default is left out."""
    no_model_type(v)
    for key in ("pad_token_id", "hidden_act", "position_embedding_type", "tie_word_embeddings", "initializer_range"):
        v.config.pop(key)


def config(**values):
    return lambda v: v.config.update(values)


def prefix(text):
    return lambda v: v.rename(lambda name: text + name)


CONVERTS = {
    "gamma and beta": (gamma_beta, "safetensors"),
    "gamma and beta in the head too": (gamma_beta_in_the_head, "safetensors"),
    "no roberta.": (lambda v: v.rename(lambda name: name.removeprefix("roberta.")), "safetensors"),
    "module.": (prefix("module."), "safetensors"),
    "_orig_mod.": (prefix("_orig_mod."), "safetensors"),
    "an attribute's name": (prefix("model."), "bin"),
    "several wrappers": (prefix_and_wrappers, "bin"),
    "lm_head.decoder alone": (decoder_names_alone, "safetensors"),
    "both names of what is tied": (both_names_of_what_is_tied, "safetensors"),
    "buffers and a pooler": (buffers_and_a_pooler, "safetensors"),
    "pytorch_model.bin": (lambda v: None, "bin"),
    "pytorch_model.bin of old torch": (lambda v: None, "old bin"),
    "sharded safetensors": (lambda v: None, "sharded"),
    "sharded bin": (lambda v: None, "sharded bin"),
    "fp16": (lambda v: v.cast(torch.float16), "bin"),
    "bf16": (lambda v: v.cast(torch.bfloat16), "safetensors"),
    "XLM-RoBERTa": (config(model_type="xlm-roberta", architectures=["XLMRobertaForMaskedLM"]), "safetensors"),
    "CamemBERT": (config(model_type="camembert", architectures=["CamembertForMaskedLM"]), "safetensors"),
    "no model_type": (no_model_type, "safetensors"),
    "left to defaults": (left_to_defaults, "bin"),
    "gelu_python": (config(hidden_act="gelu_python"), "safetensors"),
    "layer_norm_eps": (config(layer_norm_eps=1e-3), "safetensors"),
}


@pytest.mark.parametrize("name", CONVERTS)
def test_converts_with_equal_logits(plain, tmp_path, name):
    change, form = CONVERTS[name]
    variant = Variant(plain, tmp_path / "variant")
    before = variant.tensors
    change(variant)
    dtype = next(tensor.dtype for tensor in variant.tensors.values() if tensor.is_floating_point())
    done = convert(variant.save(form), "huggingface", tmp_path / "out", text=plain.with_name("text.txt"))
    reference = RobertaForMaskedLM.from_pretrained(plain, layer_norm_eps=variant.config["layer_norm_eps"])
    rounded = {key: tensor.to(dtype).float() for key, tensor in before.items()}
    reference.load_state_dict(rounded, strict=False)
    with torch.no_grad():
        expected = reference.eval()(TOKENS).logits
        actual = RobertaForMaskedLM.from_pretrained(done.output).eval()(TOKENS).logits
    assert (actual - expected).abs().max() < TOLERANCE < expected.abs().max()
    assert_loads_as_transformers_does(variant, done.output)


def assert_loads_as_transformers_does(variant: Variant, converted: Path) -> None:
    """What transformers itself loads with nothing missing has our logits. Some names only its newer versions load: 4.57.1 does
    not know an encoder's without `roberta.` beside a head's, and leaves a head's matrix under lm_head.decoder alone without values.
    """
    kind = variant.config.get("model_type", "roberta")
    model_class = {"xlm-roberta": transformers.XLMRobertaForMaskedLM, "camembert": transformers.CamembertForMaskedLM}.get(
        kind, RobertaForMaskedLM
    )
    try:
        model, info = model_class.from_pretrained(variant.folder, dtype=torch.float32, output_loading_info=True)
    except ValueError:
        assert transformers.__version__.startswith("4.")
        return
    if not info["missing_keys"] and not any(weight.is_meta for weight in model.parameters()):
        with torch.no_grad():
            difference = model.eval()(TOKENS).logits - RobertaForMaskedLM.from_pretrained(converted).eval()(TOKENS).logits
        assert difference.abs().max() < TOLERANCE


def test_the_wrapper_and_the_kind_are_told(plain, tmp_path):
    variant = Variant(plain, tmp_path / "variant")
    prefix("module.")(variant)
    variant.config["model_type"] = "xlm-roberta"
    notes = convert(variant.save(), "robustbert", tmp_path / "out", text=plain.with_name("text.txt")).notes
    assert any("'module.'" in note for note in notes) and any("XLMRobertaForMaskedLM" in note for note in notes)


def test_six_layers_of_distilroberta_convert(plain, tmp_path):
    """DistilRoBERTa is a RobertaForMaskedLM of six layers and calls itself so."""
    variant = Variant(plain, tmp_path / "variant")
    variant.config["num_hidden_layers"] = 6
    for layer in range(2, 6):
        first = "roberta.encoder.layer.0."
        variant.tensors |= {
            name.replace(".0.", f".{layer}.", 1): tensor + layer / 50
            for name, tensor in variant.tensors.items()
            if name.startswith(first)
        }
    done = convert(variant.save("bin"), "huggingface", tmp_path / "out", text=plain.with_name("text.txt"))
    assert done.max_logit_difference < TOLERANCE


# Refused


def spoil(**values):
    def change(v):
        v.tensors |= {name: function(v.tensors[name]) for name, function in values.items()}

    return change


def without(*names):
    return lambda v: [v.tensors.pop(name) for name in names]


def more_layers_than_config(v):
    v.config["num_hidden_layers"] = 1


def two_encoders(v):
    v.tensors = {f"{tower}.{name}": tensor.clone() for tower in ("query", "passage") for name, tensor in v.tensors.items()}


def part_of_another(v):
    v.rename(lambda name: f"text.{name}")
    v.tensors["vision.weight"] = torch.zeros(3)


def two_values_of_one_tensor(v):
    v.tensors["encoder.layer.0.output.dense.bias"] = torch.ones(32)


def adapter(v):
    v.tensors["roberta.encoder.layer.0.attention.self.query.lora_A.weight"] = torch.zeros(4, 32)


def untied(v):
    v.tensors["lm_head.decoder.weight"] = v.tensors[WORDS] + 0.1


def one_not_a_number(v):
    v.tensors["lm_head.dense.bias"][3] = float("nan")


REFUSED = {
    "a tensor missing": (
        without("roberta.encoder.layer.1.output.dense.bias"), r"layer.1.output.dense.bias is missing: it is cut off",
    ),
    "more layers": (more_layers_than_config, r"layer\.1\.\S+ and 15 others are unknown to a RoBERTa of this config.json"),
    "another shape": (spoil(**{HEAD_BIAS: lambda t: t[:30].clone()}), r"lm_head.bias has the shape \(30,\).* says \(300,\)"),
    "whole numbers": (spoil(**{HEAD_BIAS: lambda t: t.to(torch.int8)}), r"lm_head.bias holds torch.int8"),
    "NaN": (one_not_a_number, r"1 of the 32 values of lm_head.dense.bias are NaN or infinite"),
    "untied though config.json ties": (untied, r"lm_head.decoder.weight differs from roberta\S+; only a model whose head is tied"),
    "not tied": (config(tie_word_embeddings=False), r"tie_word_embeddings is false .* lm_head.decoder.weight is missing"),
    "two encoders": (two_encoders, r"holds 2 encoders, under 'passage.', 'query.'"),
    "part of another model": (part_of_another, r"begin with 'text.', but there is vision.weight"),
    "two values of one tensor": (two_values_of_one_tensor, r"layer.0.output.dense.bias under two names, with different values"),
    "adapter": (adapter, r"query.lora_A.weight is unknown to a RoBERTa"),
    "BERT": (config(model_type="bert"), r"config.json: its model_type 'bert' is another architecture"),
    "pre-LN": (config(model_type="roberta-prelayernorm"), r"'roberta-prelayernorm' is another architecture"),
    "gelu_new": (config(hidden_act="gelu_new"), r"hidden_act 'gelu_new' is another function"),
    "relative positions": (config(position_embedding_type="relative_key"), r"position_embedding_type 'relative_key'"),
    "decoder": (config(is_decoder=True), r"is_decoder True is another function"),
    "cross-attention": (config(add_cross_attention=True), r"add_cross_attention True"),
    "pruned heads": (config(pruned_heads={"0": [1]}), r"pruned_heads {'0': \[1\]}"),
    "quantised": (config(quantization_config={"quant_method": "bitsandbytes"}), r"quantization_config .* is another function"),
    "no padding": (config(pad_token_id=None), r"pad_token_id is null"),
    "other padding": (config(pad_token_id=0), r"its padding is id 1, the model's 0"),
    "bad sizes": (config(num_attention_heads=5), r"config.json: .*multiple"),
}  # fmt: skip


def refused(source: Path, out: Path, message: str, **options) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        convert(source, "robustbert", out, **options)
    assert "\n" not in str(raised.value) and str(source) in str(raised.value) and not out.exists()


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_in_one_line(plain, tmp_path, name):
    change, message = REFUSED[name]
    variant = Variant(plain, tmp_path / "variant")
    change(variant)
    refused(variant.save(), tmp_path / "out", message, text=plain.with_name("text.txt"))


class Hostile:
    """Runs a command if it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def pointer(file: Path) -> None:
    file.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 498818054\n")


def web_page(file: Path) -> None:
    file.write_text("\n<!DOCTYPE html>\n<html><body>404</body></html>")


def hostile(file: Path) -> None:
    torch.save({"lm_head.bias": Hostile(file.with_name("it_ran"))}, file)


def training_state(file: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {"a": torch.zeros(1)}}, file)


BAD_FILES = {
    "cut off": (cut, r"cannot be read .*cut off or damaged"),
    "Git-LFS pointer": (pointer, r"is a Git-LFS pointer, .* `git lfs pull`"),
    "web page": (web_page, r"is a web page saved under this name"),
    "empty": (lambda file: file.write_bytes(b""), r"is empty"),
}
BAD_PICKLES = {
    "hostile": (hostile, r"refused, for it asks for posix.system, .* nothing of it was run"),
    "a trainer's state": (training_state, r"is no state dict \(it holds epoch, state_dict\)"),
}
FORMS = {"safetensors": "model.safetensors", "bin": "pytorch_model.bin", "old bin": "pytorch_model.bin"}


@pytest.mark.parametrize(
    ("form", "name"),
    [(form, name) for form in FORMS for name in BAD_FILES] + [("bin", name) for name in BAD_PICKLES],
)
def test_a_bad_file_is_named(plain, tmp_path, form, name):
    spoilt, message = (BAD_FILES | BAD_PICKLES)[name]
    folder = Variant(plain, tmp_path / "variant").save(form)
    spoilt(folder / FORMS[form])
    refused(folder, tmp_path / "out", FORMS[form] + ": " + message)
    assert not (folder / "it_ran").exists()


def test_a_web_page_as_config_is_named(plain, tmp_path):
    folder = Variant(plain, tmp_path / "variant").save()
    web_page(folder / "config.json")
    refused(folder, tmp_path / "out", "config.json: is a web page")


def test_a_shard_that_is_not_there_is_named(plain, tmp_path):
    folder = Variant(plain, tmp_path / "variant").save("sharded bin")
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    refused(folder, tmp_path / "out", r"of its 2 files pytorch_model-00002-of-00002.bin is not there")


def test_weights_of_other_libraries_alone_are_named(plain, tmp_path):
    folder = Variant(plain, tmp_path / "variant").save()
    (folder / "model.safetensors").rename(folder / "tf_model.h5")
    refused(folder, tmp_path / "out", r"has none of model.safetensors.*what it has is tf_model.h5")
