"""The runner: neither an interruption nor the number of processes changes a result; nothing is overwritten."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robustbert.finetune.evaluate import load_outputs, outputs_file, save_outputs
from robustbert.finetune.finetune import Request, finetune
from robustbert.finetune.output import OutputFolder
from robustbert.finetune.progress import Quiet
from robustbert.finetune.settings import FinetuneError, Settings
from robustbert.finetune.task import Encoded, Item
from robustbert.finetune.tasks import build_task
from robustbert.job import Job
from robustbert.testing.ranks import run_on_ranks
from tests.finetune.made_glue import write_made_glue

SETTINGS = Settings(lr=1e-3, batch_size=16, micro_batch_size=4, epochs=3, max_length=32, save_steps=3)


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    return write_made_glue(tmp_path_factory.mktemp("glue"), num_train=72, num_dev=20)


def run(name, request, view=None):
    return finetune(build_task(name), request, Job(), view or Quiet())


def dev_outputs(name, glue, model):
    """The kept outputs of a finished finetuning's first development set."""
    from transformers import AutoTokenizer

    task = build_task(name)
    examples = task.read(glue / task.folders[0], task.dev_splits[0])
    items = task.items(examples, AutoTokenizer.from_pretrained(model), 32, False)
    return load_outputs(model / outputs_file(task.dev_splits[0]), items)


def weights(output):
    from safetensors.torch import load_file

    return load_file(output / "model" / "model.safetensors")


def same_weights(one, other):
    one, other = weights(one), weights(other)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Interrupt(Quiet):
    """Ends the process' work after so many steps."""

    def __init__(self, at_step):
        self.at_step, self.resumed = at_step, ""

    def say(self, text):
        self.resumed = text if "resumed" in text else self.resumed

    def step(self, step, total_steps, loss, left_s):
        if step == self.at_step:
            raise KeyboardInterrupt


def test_result_holds_what_was_done(tmp_path, glue, tiny_model):
    result = run("mnli", Request(glue, tmp_path / "out", SETTINGS, tiny_model))
    assert result == json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["metrics"].keys() == {"dev_matched", "dev_mismatched"} and result["steps"] == 15
    assert result["watched"]["value"] == max(epoch["watched"] for epoch in result["history"])
    assert result["settings"]["lr"] == 1e-3 and result["versions"]["torch"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["metrics.jsonl", "model", "result.json", "settings.json"]
    assert len(dev_outputs("mnli", glue, tmp_path / "out" / "model")) == 20


def test_saved_model_gives_the_saved_outputs(tmp_path, glue, tiny_model):
    run("sst-2", Request(glue, tmp_path / "out", SETTINGS, tiny_model))
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder, task = tmp_path / "out" / "model", build_task("sst-2")
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    outputs = dev_outputs("sst-2", glue, folder)
    for example, output in zip(task.read(glue / "SST-2", "dev"), outputs):
        with torch.inference_mode():
            logits = model.eval()(**tokenizer(*example.texts, return_tensors="pt")).logits[0]
        np.testing.assert_allclose(logits.numpy(), output, atol=1e-5)
    modes = {path.name: path.stat().st_mode for path in folder.iterdir()}
    assert "model.safetensors" in modes and set(modes.values()) == {modes["config.json"]}, modes
    positions = model.config.max_position_embeddings - model.config.pad_token_id - 1
    assert len(tokenizer("good " * 10_000, truncation=True)["input_ids"]) == positions


@pytest.mark.parametrize("at_step", [2, 5, 7])  # before any state, at an epoch's end, between states
def test_interrupted_run_goes_on_to_the_same_bits(tmp_path, glue, tiny_model, at_step):
    whole = Request(glue, tmp_path / "whole", SETTINGS, tiny_model)
    result = run("rte", whole)
    broken = replace(whole, output=tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt):
        run("rte", broken, Interrupt(at_step))
    view = Interrupt(at_step=-1)
    again = run("rte", broken, view)
    assert ("resumed" in view.resumed) == (at_step > 3)
    assert again["history"] == result["history"] and same_weights(whole.output, broken.output)


def test_finished_folder_is_answered_and_another_command_refused(tmp_path, glue, tiny_model):
    request = Request(glue, tmp_path / "out", replace(SETTINGS, epochs=1), tiny_model)
    result = run("wnli", request)
    before = (request.output / "result.json").stat().st_mtime_ns
    assert run("wnli", request, Interrupt(1)) == result and (request.output / "result.json").stat().st_mtime_ns == before
    with pytest.raises(FinetuneError, match="belongs to a finetuning with lr 0.001, not 0.5; nothing is overwritten"):
        run("wnli", replace(request, settings=replace(request.settings, lr=0.5)))
    with pytest.raises(FinetuneError, match="task 'wnli', not 'rte'"):
        run("rte", request)
    with pytest.raises(FinetuneError, match="--start-from nowhere: no finished finetuning there"):
        run("wnli", Request(glue, tmp_path / "x", SETTINGS, start_from=Path("nowhere")))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("...")
    with pytest.raises(FinetuneError, match="exists and is no finetuning's folder"):
        run("wnli", replace(request, output=tmp_path / "thesis"))


def test_start_from_takes_the_encoder_and_a_new_head(tmp_path, glue, tiny_model):
    frozen = replace(SETTINGS, epochs=1, lr=1e-12)
    run("mnli", Request(glue, tmp_path / "mnli", replace(SETTINGS, epochs=1), tiny_model))
    run("sts-b", Request(glue, tmp_path / "sts", frozen, start_from=tmp_path / "mnli"))
    mnli, sts = weights(tmp_path / "mnli"), weights(tmp_path / "sts")
    encoder = [name for name in mnli if name.startswith("roberta.") and mnli[name].dim() > 1]
    assert encoder and all(torch.allclose(mnli[name], sts[name], atol=1e-6) for name in encoder)
    assert not torch.allclose(mnli["classifier.dense.weight"], sts["classifier.dense.weight"], atol=1e-3)
    assert sts["classifier.out_proj.weight"].shape == (1, 32)
    with pytest.raises(FinetuneError, match="no finished finetuning"):
        run("sts-b", Request(glue, tmp_path / "x", frozen, start_from=tmp_path))


@pytest.mark.parametrize("has_classifier", [True, False])
def test_the_pooler_of_the_next_sentence_loss_is_kept(tmp_path, glue, tiny_model, has_classifier):
    """As in BERT (section 4.2). A pooler without the loss' classifier may never have been trained: it is drawn anew."""
    from safetensors.torch import load_file, save_file

    model = shutil.copytree(tiny_model, tmp_path / "model")
    state = load_file(model / "model.safetensors")
    state |= {"roberta.pooler.dense.weight": torch.randn(32, 32), "roberta.pooler.dense.bias": torch.randn(32)}
    if has_classifier:
        state |= {"cls.seq_relationship.weight": torch.randn(2, 32), "cls.seq_relationship.bias": torch.randn(2)}
    save_file(state, model / "model.safetensors", metadata={"format": "pt"})
    run("rte", Request(glue, tmp_path / "out", replace(SETTINGS, epochs=1, lr=1e-12), model))
    dense = weights(tmp_path / "out")["classifier.dense.weight"]
    assert torch.allclose(dense, state["roberta.pooler.dense.weight"], atol=1e-6) == has_classifier


def test_an_interrupted_finetuning_goes_on_with_the_model_that_it_began_with(tmp_path, glue, tiny_model):
    """A run that is named stands for its newest checkpoint, which may be another one by then."""
    name = tmp_path / "run"
    name.symlink_to(tiny_model)
    request = Request(glue, tmp_path / "out", SETTINGS, name)
    with pytest.raises(KeyboardInterrupt):
        run("wnli", request, Interrupt(2))  # before the first state
    began_with = Path(json.loads((tmp_path / "out" / "settings.json").read_text())["encoder"])
    name.unlink()
    name.mkdir()  # nothing that could be converted
    assert began_with == name and OutputFolder(tmp_path / "out").encoder() == name
    settings = json.loads((tmp_path / "out" / "settings.json").read_text()) | {"encoder": str(tiny_model)}
    (tmp_path / "out" / "settings.json").write_text(json.dumps(settings))
    assert run("wnli", request)["encoder"] == str(tiny_model)


def test_what_a_cut_off_write_left_blocks_nothing(tmp_path, glue, tiny_model):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "settings.json.partial").write_text("{")
    assert run("wnli", Request(glue, tmp_path / "out", replace(SETTINGS, epochs=1), tiny_model))["epochs"] == 1


def test_patience_ends_the_training(tmp_path, glue, tiny_model):
    stuck = replace(SETTINGS, lr=1e-12, epochs=9, patience=2)
    assert run("rte", Request(glue, tmp_path / "out", stuck, tiny_model))["epochs"] == 3


def test_untrained_model_has_other_weights(tmp_path, glue, tiny_model):
    frozen = replace(SETTINGS, epochs=1, lr=1e-12)
    for name, untrained in (("taken", False), ("drawn", True)):
        run("rte", Request(glue, tmp_path / name, replace(frozen, untrained=untrained), tiny_model))
    from safetensors.torch import load_file

    name = "roberta.encoder.layer.0.output.dense.weight"
    pretrained = load_file(tiny_model / "model.safetensors")[name]
    assert torch.allclose(weights(tmp_path / "taken")[name], pretrained, atol=1e-6)
    assert not torch.allclose(weights(tmp_path / "drawn")[name], pretrained, atol=1e-2)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_trains(tmp_path, glue, tiny_model, precision):
    result = run("sst-2", Request(glue, tmp_path / "out", replace(SETTINGS, precision=precision, epochs=2), tiny_model))
    full = run("sst-2", Request(glue, tmp_path / "fp32", replace(SETTINGS, epochs=2), tiny_model))
    assert result["steps"] == full["steps"]
    reduced, exact = (dev_outputs("sst-2", glue, tmp_path / name / "model") for name in ("out", "fp32"))
    for reduced, exact in zip(reduced, exact, strict=True):
        np.testing.assert_allclose(reduced, exact, atol=0.1)


def test_missing_sets_and_models_are_named(tmp_path, glue, tiny_model):
    with pytest.raises(FinetuneError, match="has no train set of sst-2"):
        run("sst-2", Request(tmp_path, tmp_path / "a", SETTINGS, tiny_model))
    with pytest.raises(ValueError, match="no Hugging Face model"):
        run("sst-2", Request(glue, tmp_path / "b", SETTINGS, glue))
    with pytest.raises(FinetuneError, match="is no folder; --data takes"):
        run("sst-2", Request(tmp_path / "none", tmp_path / "c", SETTINGS, tiny_model))


def test_bert_without_a_head_is_finetuned_with_its_token_types(tmp_path, glue):
    from transformers import BertConfig, BertModel

    from robustbert.data.tokenizer import train_tokenizer

    words = "the film was bright lovely warm or dull bleak harsh sour a house river song garden letter storm market it plain odd grand"
    tokenizer = train_tokenizer(iter([words] * 3), 90, kind="wordpiece")
    tokenizer.save(tmp_path / "bert")
    config = BertConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    bert = BertModel(config)
    bert.save_pretrained(tmp_path / "bert")
    run("rte", Request(glue, tmp_path / "out", replace(SETTINGS, epochs=1, lr=1e-12), tmp_path / "bert"))
    taken = weights(tmp_path / "out")
    name = "embeddings.token_type_embeddings.weight"
    assert torch.allclose(taken[f"bert.{name}"], bert.state_dict()[name], atol=1e-6)
    assert taken["classifier.weight"].shape == (2, 32)
    with pytest.raises(FinetuneError, match="transformers cannot read a model there"):
        (tmp_path / "bert" / "model.safetensors").unlink()
        run("rte", Request(glue, tmp_path / "other", SETTINGS, tmp_path / "bert"))


def test_weights_that_the_file_lacks_are_named(tmp_path, glue, tiny_model):
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny_model, tmp_path / "model")
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    name = "roberta.encoder.layer.1.output.dense.weight"
    save_file({key: value for key, value in tensors.items() if key != name}, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    with pytest.raises(FinetuneError, match="encoder.layer.1.output.dense.weight"):
        run("rte", Request(glue, tmp_path / "out", SETTINGS, tmp_path / "model"))


def test_outputs_of_any_shapes_are_kept_for_their_items_only(tmp_path):
    items = [Item(i, (Encoded(np.full(4, i, np.int32)),)) for i in range(3)]
    outputs = [np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros((), np.float32), np.ones((1, 4), np.float32)]
    save_outputs(tmp_path / "outputs.npz", items, outputs)
    for read, written in zip(load_outputs(tmp_path / "outputs.npz", items), outputs, strict=True):
        assert read.shape == written.shape and np.array_equal(read, written)
    assert load_outputs(tmp_path / "outputs.npz", items[::-1]) is None
    (tmp_path / "outputs.npz").write_bytes(b"PK damaged")
    with pytest.raises(FinetuneError, match="no outputs can be read"):
        load_outputs(tmp_path / "outputs.npz", items)


def finetune_on_rank(job, request):
    result = finetune(build_task("mrpc"), request, job, Quiet())
    return result["history"]


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [2, 4])
def test_result_of_several_processes_is_bitwise_that_of_one(tmp_path, glue, tiny_model, num_ranks):
    request = Request(glue, tmp_path / "one", SETTINGS, tiny_model)
    history = run_on_ranks(finetune_on_rank, 1, request)[0]
    several = replace(request, output=tmp_path / "several")
    assert run_on_ranks(finetune_on_rank, num_ranks, several) == [history] * num_ranks
    assert same_weights(request.output, several.output)
    one, other = (dev_outputs("mrpc", glue, output / "model") for output in (request.output, several.output))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_compiled_layers_finetune_to_the_same_outputs(tmp_path, glue, tiny_model):
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on CPU")
    settings = replace(SETTINGS, epochs=1, dropout=0.0, attention_dropout=0.0)
    eager = Request(glue, tmp_path / "eager", settings, tiny_model)
    for request in (eager, replace(eager, output=tmp_path / "compiled", compiled=True)):
        run("mrpc", request)
    plain, compiled = (dev_outputs("mrpc", glue, tmp_path / name / "model") for name in ("eager", "compiled"))
    np.testing.assert_allclose(compiled, plain, atol=1e-4)
    assert weights(tmp_path / "eager").keys() == weights(tmp_path / "compiled").keys()
    assert run("mrpc", replace(eager, compiled=True))["epochs"] == 1  # it is the same finetuning: finished
