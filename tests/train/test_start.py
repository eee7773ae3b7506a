"""A run that begins with another model's weights: exactly those, at any layout, from any format; and what is refused."""

import dataclasses
import shutil

import pytest
import torch

from launcher.event_text import event_line
from launcher.submit import create_run
from robustbert.checkpoint.index import SavedTensors
from robustbert.checkpoint.manifest import CheckpointError, committed_checkpoints, read_manifest
from robustbert.checkpoint.pieces import shards_of
from robustbert.checkpoint.restore import restore_weights
from robustbert.config import load_config
from robustbert.convert.convert import convert
from robustbert.job import Job
from robustbert.testing import run_on_ranks
from robustbert.train.start import Start
from robustbert.train.start_from import check_start, find_start
from robustbert.train.state import TrainState
from robustbert.train.trouble import Rollback
from tests.checkpoint.test_sharded import save
from tests.parallel.small_training import Layout, Recipe, opened, run_step
from tests.train.small_run import CONFIG, make_run, train


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A finished run of 10 steps."""
    folder = tmp_path_factory.mktemp("source")
    config, run = make_run(folder, "source", ("train.steps=10",))
    train(Job(), config, run)
    return run


def tokenizer_of(run):
    return read_manifest(find_start(str(run.path))).state["tokenizer_sha256"]


def begin(source, folder, start_from, *overrides, num_ranks=1):
    """A new run of two steps, begun from `start_from`; its events by name."""
    chosen = ("train.steps=2", "optim.warmup_steps=1", f"data.tokenizer={source.data / 'tokenizer'}", f"train.start_from={start_from}")
    config, run = make_run(folder, "new", (*chosen, f"cluster.processes_per_node={num_ranks}", *overrides))
    if num_ranks == 1:
        train(Job(), config, run)
    else:
        run_on_ranks(train, num_ranks, config, run)
    return {event["event"]: event for event in run.events()}


@pytest.mark.parametrize("layout", [(), ("parallel.tensor=2",), ("parallel.pipeline=2", "precision=fp16")], ids=["one", "tp2", "pp2-fp16"])
def test_a_run_begins_with_anothers_weights_at_any_layout(layout, source, tmp_path):
    events = begin(source, tmp_path, source.path, *layout, num_ranks=2 if layout else 1)
    assert events["weights_taken"]["path"] == str(source.checkpoints / "step_00000010")
    assert events["weights_taken"]["of_step"] == 10 and events["weights_taken"]["drawn"] == []
    assert events["started"]["step"] == 0 and events["finished"]["step"] == 2
    reached = source.events()[-1]["heldout_perplexity"]
    assert events["started"]["heldout_perplexity_before"] == pytest.approx(reached, rel=1e-2 if "precision=fp16" in layout else 1e-5)
    assert source.events()[-1]["heldout_perplexity_before"] > 1.5 * reached  # the first weights were others


def test_a_run_over_pairs_draws_what_the_other_model_has_not(source, tmp_path):
    events = begin(source, tmp_path, source.path, "data.format=segment-pair", "parallel.pipeline=2", num_ranks=2)
    drawn = events["weights_taken"]["drawn"]
    assert {name.split(".")[0] for name in drawn} == {"embeddings", "next_sentence_head"} and len(drawn) == 5
    assert "embeddings.token_type_embeddings.weight" in drawn


def test_a_run_without_pairs_says_that_the_next_sentence_head_is_left_out(source, tmp_path):
    (tmp_path / "pairs").mkdir()
    begin(source, tmp_path / "pairs", source.path, "data.format=segment-pair")
    events = begin(source, tmp_path, tmp_path / "pairs" / "new", "model.num_token_types=2")
    left_out = events["weights_taken"]["left_out"]
    assert len(left_out) == 4 and all(name.startswith("next_sentence_head.") for name in left_out)
    assert events["weights_taken"]["drawn"] == []
    assert "left out, for this run has no pairs: next_sentence_head." in event_line(events["weights_taken"])


def test_a_run_begins_with_a_model_of_hugging_face(source, tmp_path):
    convert(source.path, "huggingface", tmp_path / "model")
    back = convert(tmp_path / "model", "robustbert", tmp_path / "back").output
    events = begin(source, tmp_path, back, f"data.tokenizer={back / 'tokenizer'}")
    assert events["started"]["heldout_perplexity_before"] == pytest.approx(source.events()[-1]["heldout_perplexity"], rel=1e-5)


def check_main_weights(job, layout, recipe, folder):
    """Main weights are the file's fp32 numbers, not those of the rounded parameters; the optimizer is new."""
    with opened(job, layout, recipe) as (mesh, model, optimizer):
        run_step(mesh, model, optimizer, recipe, 0)
        optimizer.forget()
        restore_weights(folder, model, optimizer, mesh)
        saved = SavedTensors(folder)
        parts = {id(part.parameter): part for part in optimizer.owned_parts()}
        rounded = 0
        for shard, parameter in shards_of(model, mesh):
            if part := parts.get(id(parameter)):
                expected = torch.from_numpy(saved.read(shard, start=part.start, stop=part.stop))
                assert torch.equal(part.weight, expected), shard.name
                rounded += int((parameter.detach().view(-1)[part.start : part.stop].float() != expected).sum())
                assert all(moment.abs().max() == 0 for moment in part.moments.values())
        return rounded


def save_source(job, layout, recipe, folder):
    with opened(job, layout, recipe) as (mesh, model, optimizer):
        for step in range(2):
            run_step(mesh, model, optimizer, recipe, step)
        save(folder, mesh, model, optimizer, 2)


def test_main_weights_are_those_of_the_file_and_not_rounded(tmp_path):
    run_on_ranks(save_source, 1, Layout(), Recipe(), tmp_path)
    layout, recipe = Layout(data=2), dataclasses.replace(Recipe(), precision="bf16", seed=99)
    assert all(run_on_ranks(check_main_weights, 2, layout, recipe, committed_checkpoints(tmp_path / "checkpoints")[-1]))


def test_a_rollback_before_any_checkpoint_goes_back_to_them(source, tmp_path):
    class NoCheckpoints:
        def load_newest_good(self):
            return False

    chosen = (f"data.tokenizer={source.data / 'tokenizer'}", f"train.start_from={source.path}")
    config, run = make_run(tmp_path, "new", chosen)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=300))
    recipe = dataclasses.replace(Recipe(), model=config.model)
    tokenizer = tokenizer_of(source)
    with opened(Job(), Layout(), recipe) as (mesh, model, optimizer):
        state = TrainState(step=3, data_step=3, tokenizer_sha256=tokenizer)
        rollback = Rollback(config, run, mesh, Start(config, run, mesh, model, optimizer, tokenizer), state)
        rollback.roll_back("broken on demand", NoCheckpoints())
        saved = SavedTensors(find_start(str(source.path)))
        for shard, parameter in shards_of(model, mesh):
            assert torch.equal(parameter.detach().view(-1), torch.from_numpy(saved.read(shard))), shard.name
    assert state.step == 0 and run.events()[-1]["to_step"] == 0


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.num_layers=4"], "give this run's the same: model.num_layers=2"),
        (["model.num_attention_heads=8"], "give this run's the same: model.num_attention_heads=4"),  # no tensor's shape tells
        (["model.max_sequence_length=64"], "give this run's the same: model.max_sequence_length=32"),
        (["model.layernorm_eps=1e-12"], "give this run's the same: model.layernorm_eps=1e-05"),
        (["model.hidden_size=64"], "give this run's the same: model.hidden_size=32"),
    ],
)
def test_another_shape_is_refused_with_the_options_that_fit(overrides, words, source, tmp_path):
    (tmp_path / "new.yaml").write_text(CONFIG.replace("TEXT", "text.txt"))
    config = load_config(tmp_path / "new.yaml", overrides)
    with pytest.raises(CheckpointError, match=words):
        check_start(find_start(str(source.path)), config.model, tokenizer_of(source))


def test_token_types_are_not_left_out_in_silence(source, tmp_path, monkeypatch):
    manifest = read_manifest(find_start(str(source.path)))
    manifest.config["model"]["num_token_types"] = 2
    monkeypatch.setattr("robustbert.train.start_from.read_manifest", lambda folder: manifest)
    (tmp_path / "new.yaml").write_text(CONFIG.replace("TEXT", "text.txt"))
    with pytest.raises(CheckpointError, match="give this run's the same: model.num_token_types=2"):
        check_start(source.path, load_config(tmp_path / "new.yaml").model, manifest.state["tokenizer_sha256"])
    pairs = load_config(tmp_path / "new.yaml", ["data.format=segment-pair"])
    check_start(source.path, pairs.model, manifest.state["tokenizer_sha256"])


def test_another_tokenizer_is_refused_with_the_one_that_fits(source, tmp_path):
    (tmp_path / "new.yaml").write_text(CONFIG.replace("TEXT", "text.txt"))
    config = load_config(tmp_path / "new.yaml")
    with pytest.raises(CheckpointError, match=f"another tokenizer .*data.tokenizer={source.data / 'tokenizer'}"):
        check_start(find_start(str(source.path)), config.model, "0" * 64)


def test_a_damaged_checkpoint_is_refused(source, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(find_start(str(source.path)), copy)
    shard = next(copy.glob("*.bin"))
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(CheckpointError, match="train.start_from: .*its checksum differs"):
        begin(source, tmp_path, copy)


def test_what_is_no_checkpoint_is_refused_with_the_command_that_makes_one(tmp_path):
    with pytest.raises(CheckpointError, match=f"tools/convert {tmp_path} --to robustbert"):
        find_start(str(tmp_path))


def test_a_submitted_run_keeps_the_checkpoint_and_not_the_name(source, tmp_path):
    config, run = make_run(tmp_path, "new", (f"train.start_from={source.path}",))
    shutil.rmtree(run.path)
    create_run(run, config)
    assert load_config(run.config_file).train.start_from == str(source.checkpoints / "step_00000010")
