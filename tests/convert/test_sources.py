"""What a source stands for: an encoder without a head, a file for its folder, a folder of several models; an interruption."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from robustbert.convert.convert import convert
from tests.convert.test_huggingface_variants import TOLERANCE, Variant, plain, refused  # noqa: F401 (a fixture)

# An encoder without a head


def encoder(plain: Path, folder: Path, **others) -> Path:
    """What RobertaModel.save_pretrained writes: no prefix, no head. others: tensors beside it."""
    variant = Variant(plain, folder)
    variant.config["architectures"] = ["RobertaModel"]
    variant.tensors = {
        name.removeprefix("roberta."): tensor for name, tensor in variant.tensors.items() if not name.startswith("lm_head.")
    } | others
    return variant.save()


def test_an_encoder_without_a_head_is_refused_with_the_way_out(plain, tmp_path):
    refused(encoder(plain, tmp_path / "encoder"), tmp_path / "out", r"without a masked-language-model head .* --new-head")


def test_a_new_head_is_drawn_from_the_seed_and_told(plain, tmp_path):
    classifier = {"classifier.out_proj.weight": torch.zeros(3, 32)}  # as RobertaForSequenceClassification has
    source = encoder(plain, tmp_path / "encoder", **classifier)
    converted = {}
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        done = convert(source, "huggingface", tmp_path / name, text=plain.with_name("text.txt"), head_seed=seed)
        assert done.max_logit_difference < TOLERANCE
        assert any(f"head is new, untrained, drawn from seed {seed}" in note for note in done.notes)
        assert any("classifier.out_proj.weight" in note for note in done.notes)
        converted[name] = load_file(done.output / "model.safetensors")
    one, again, two, before = *converted.values(), load_file(plain / "model.safetensors")
    dense = "lm_head.dense.weight"
    assert one[dense].equal(again[dense]) and not one[dense].equal(two[dense]) and 0.01 < one[dense].std() < 0.03
    assert all(one[name].equal(tensor) for name, tensor in before.items() if not name.startswith("lm_head."))


def test_a_head_that_is_there_is_not_replaced(plain, tmp_path):
    refused(plain, tmp_path / "out", "has a masked-language-model head .* leave out --new-head", head_seed=1)


# Which folder


def test_a_weight_file_stands_for_its_folder(plain, tmp_path):
    text = plain.with_name("text.txt")
    assert convert(plain / "model.safetensors", "robustbert", tmp_path / "out", text=text).source.path == plain


@pytest.mark.parametrize("below", ["checkpoint-500", "snapshots/0123abcd"])
def test_a_folder_of_models_names_the_newest(plain, tmp_path, below):
    inner = tmp_path / "runs" / below
    inner.mkdir(parents=True)
    (inner / "config.json").write_text("{}")
    refused(tmp_path / "runs", tmp_path / "out", f"of 1 with a model the newest is {inner}")


def test_an_adapter_alone_is_named(tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    refused(tmp_path / "adapter", tmp_path / "out", "an adapter alone: merge it")


def test_a_conversion_that_is_interrupted_leaves_nothing(plain, tmp_path, monkeypatch, capsys):
    from robustbert.convert import cli
    from robustbert.convert import convert as module

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "compare", interrupted)
    assert cli.main([str(plain), "--to", "robustbert", "--output", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == f"tools/convert: interrupted; {tmp_path / 'out'} was not written\n"
    assert not list(tmp_path.iterdir())
