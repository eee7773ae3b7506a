"""The loop: a stopped and resumed run is the uninterrupted one; bad input ends it in one line; checkpoints are trusted only when whole."""

import dataclasses
import shutil

import pytest
from safetensors.torch import load_file

from robustbert.checkpoint.manifest import COMMITTED, CheckpointError, checksum, committed_checkpoints, verify
from robustbert.config import ConfigError
from robustbert.data.batches import build_train_batches
from robustbert.data.prepare import prepared_data
from robustbert.job import Job
from robustbert.testing import run_on_ranks
from robustbert.train.trouble import TrainingDiverged
from tests.data.conftest import make_text
from tests.train.small_run import losses, make_run, train, write_text

DROPOUT = ("model.dropout=0.1", "model.attention_dropout=0.1")
TWO_RANKS = {
    "dp2-fp32": (*DROPOUT, "cluster.processes_per_node=2"),
    "dp2-fp16": (*DROPOUT, "cluster.processes_per_node=2", "precision=fp16"),
    "tp2-sequence-parallel": (*DROPOUT, "cluster.processes_per_node=2", "parallel.tensor=2", "parallel.sequence=true"),
    "pp2": (*DROPOUT, "cluster.processes_per_node=2", "parallel.pipeline=2"),
    "pp2-segment-pair": (*DROPOUT, "cluster.processes_per_node=2", "parallel.pipeline=2", "data.format=segment-pair"),
    "dp2-doc-sentences": (*DROPOUT, "cluster.processes_per_node=2", "data.format=doc-sentences"),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in ("dp2-fp16", "pp2-segment-pair") else [pytest.mark.slow]) for n in TWO_RANKS])
def test_a_run_stopped_and_resumed_is_bitwise_the_uninterrupted_run(name, tmp_path):
    config, whole = make_run(tmp_path, "whole", TWO_RANKS[name])
    assert run_on_ranks(train, 2, config, whole) == ["finished"] * 2
    config, stopped = make_run(tmp_path, "stopped", TWO_RANKS[name])
    assert run_on_ranks(train, 2, config, stopped, 10) == ["preempted"] * 2
    stopped_after = max(losses(stopped))
    assert 10 <= stopped_after < 20
    assert run_on_ranks(train, 2, config, stopped) == ["finished"] * 2
    assert losses(stopped) == losses(whole) and set(losses(whole)) == set(range(1, 21))
    perplexities = [run.events()[-1]["heldout_perplexity"] for run in (whole, stopped)]
    assert perplexities[0] == perplexities[1]
    events = [event["event"] for event in stopped.events()]
    assert events.count("started") == 2 and events[-1] == "finished" and "preempted" in events


def test_another_data_parallel_size_trains_on_the_same_samples(tmp_path):
    config, alone = make_run(tmp_path, "alone", DROPOUT)
    train(Job(), config, alone)
    config, together = make_run(tmp_path, "together", (*DROPOUT, "cluster.processes_per_node=2"))
    run_on_ranks(train, 2, config, together)
    for step, values in losses(alone).items():
        assert losses(together)[step][0] == pytest.approx(values[0], rel=1e-5)
        assert losses(together)[step][4] == values[4]  # tokens


@pytest.mark.parametrize("data_format", ["doc-sentences", "segment-pair", "sentence-pair"])
def test_samples_of_any_length_do_not_depend_on_the_data_parallel_size(data_format, tmp_path):
    chosen = (f"data.format={data_format}", "train.steps=8", *DROPOUT)
    config, alone = make_run(tmp_path, "alone", chosen)
    train(Job(), config, alone)
    config, together = make_run(tmp_path, "together", (*chosen, "cluster.processes_per_node=2"))
    run_on_ranks(train, 2, config, together)
    for mine, theirs in zip(alone.metrics(), together.metrics(), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5) and mine["tokens"] == theirs["tokens"]
        assert mine.get("next_sentence_loss", 0.0) == pytest.approx(theirs.get("next_sentence_loss", 0.0), rel=1e-5)


def test_stages_take_micro_batches_with_different_numbers_of_rows(tmp_path):
    chosen = ("data.format=sentence-pair", "data.sequence_length=24", "train.micro_batch_size=4", "train.steps=8")
    chosen += ("model.dropout=0", "model.attention_dropout=0")  # drawn for each stage
    config, alone = make_run(tmp_path, "alone", chosen)
    train(Job(), config, alone)
    config, together = make_run(tmp_path, "together", (*chosen, "cluster.processes_per_node=2", "parallel.pipeline=2"))
    prepared = prepared_data(config.data, together.data)
    batches = build_train_batches(prepared, config.data, config.train, config.run.seed, 0, 1)
    assert len({batch.tokens_BS.shape[0] for batch in batches.micro_batches(0)}) == 2
    batches.close()
    run_on_ranks(train, 2, config, together)
    for mine, theirs in zip(alone.metrics(), together.metrics(), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5) and mine["tokens"] == theirs["tokens"]


def test_the_samples_of_each_corpus_so_far_are_in_the_metrics(tmp_path):
    write_text(tmp_path / "text.txt")
    other = tmp_path / "other.txt"
    write_text(other, 30)
    corpora = f"data.train=[{{text: {tmp_path / 'text.txt'}, weight: 3}}, {{text: {other}, weight: 1}}]"
    config, run = make_run(tmp_path, "weighted", (corpora, "train.steps=10"))
    train(Job(), config, run)
    samples = [line["corpus_samples"] for line in run.metrics()]
    assert [sum(counts.values()) for counts in samples] == [8 * step for step in range(1, 11)]
    assert samples[-1][str(other)] == pytest.approx(20, abs=12)  # a quarter of 80, drawn without order within a period


def test_a_model_of_pairs_and_word_pieces_is_converted_and_fills_masks(tmp_path):
    from transformers import pipeline

    from robustbert.convert.convert import convert

    chosen = ("data.format=segment-pair", "data.tokenizer={train: {vocab_size: 100, kind: wordpiece}}", "train.steps=8")
    (tmp_path / "text.txt").write_text(make_text(100))
    config, run = make_run(tmp_path, "run", chosen)
    train(Job(), config, run)
    assert convert(run.path, "huggingface", tmp_path / "model").max_logit_difference < 1e-4
    back = convert(tmp_path / "model", "robustbert", tmp_path / "back")
    again = convert(back.output, "huggingface", tmp_path / "again")
    assert back.num_parameters == again.num_parameters
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("model", "again")]
    assert weights[0].keys() == weights[1].keys() and "cls.seq_relationship.weight" in weights[0]
    assert all(tensor.equal(weights[1][name]) for name, tensor in weights[0].items())
    fill = pipeline("fill-mask", model=str(tmp_path / "model"), tokenizer=str(tmp_path / "model"), device=-1)
    assert len(fill("the model [MASK] words", top_k=3)) == 3


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """A run of 20 steps with checkpoints at 10 and 20."""
    folder = tmp_path_factory.mktemp("finished")
    config, run = make_run(folder, "run")
    train(Job(), config, run)
    return config, run


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy of it to be damaged, whose checkpoint of step 20 is still to be reached."""
    config, original = finished_run
    copy = type(original)(tmp_path / "run")
    shutil.copytree(original.path, copy.path)
    return config, copy


def test_a_run_that_was_trained_on_is_converted_again_and_the_former_model_stays(run):
    from robustbert.train.summary import converted_newest

    _, copy = run
    newest = committed_checkpoints(copy.checkpoints)[-1]
    newest.rename(copy.path / "later")
    link = converted_newest(copy)
    assert link.resolve().name == "huggingface_step_00000010"
    (copy.path / "later").rename(newest)
    assert converted_newest(copy) == link and link.resolve().name == "huggingface_step_00000020"
    weights = [load_file(copy.converted / f"huggingface_step_000000{step}" / "model.safetensors") for step in (10, 20)]
    assert any(not tensor.equal(weights[1][name]) for name, tensor in weights[0].items())


def test_finished_event_and_metrics_have_what_scripts_read(finished_run):
    config, run = finished_run
    event = run.events()[-1]
    assert event["event"] == "finished" and event["step"] == 20
    assert event["heldout_perplexity"] < event["heldout_perplexity_before"]
    assert event["unigram_perplexity"] > 1
    wanted = {"step", "loss", "perplexity", "lr", "grad_norm", "loss_scale", "tokens", "tokens_per_s"}
    wanted |= {"step_time_s", "tflops", "mfu", "evaluating_s", "checkpointing_s"}
    parts = {"data_wait_s", "forward_backward_s", "collectives_s", "optimizer_s", "other_s"}
    assert all(wanted | parts <= set(record) for record in run.metrics())
    for record in run.metrics():
        assert sum(record[part] for part in parts) == pytest.approx(record["step_time_s"])
    assert [path.name for path in committed_checkpoints(run.checkpoints)] == ["step_00000010", "step_00000020"]
    manifest = verify(run.checkpoints / "step_00000010")
    assert manifest.state["step"] == 10 and manifest.config["model"]["num_layers"] == 2
    assert not [path for path in run.checkpoints.iterdir() if path.name.startswith(".")]


def test_a_corrupt_checkpoint_is_set_aside_and_the_one_before_is_taken(run):
    config, run = run
    before = losses(run)
    shard = next((run.checkpoints / "step_00000020").glob("*.bin"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert train(Job(), config, run) == "finished"
    rejected = [event for event in run.events() if event["event"] == "checkpoint_rejected"]
    assert len(rejected) == 1 and "checksum differs" in rejected[0]["reason"]
    assert [event["step"] for event in run.events() if event["event"] == "started"] == [0, 10]
    assert losses(run) == before
    assert (run.checkpoints / "rejected_step_00000020").exists()


def test_an_unfinished_checkpoint_does_not_count(run):
    config, run = run
    (run.checkpoints / "step_00000020" / COMMITTED).unlink()
    assert train(Job(), config, run) == "finished"
    assert [event["step"] for event in run.events() if event["event"] == "started"] == [0, 10]


def test_a_run_without_any_good_checkpoint_does_not_start_over(run):
    config, run = run
    for folder in committed_checkpoints(run.checkpoints):
        (folder / "index.json").write_bytes(b"")
    with pytest.raises(CheckpointError, match="none of the run's checkpoints can be used"):
        train(Job(), config, run)


def test_another_tokenizer_than_the_checkpoints_is_refused(run):
    config, run = run
    manifest_text = (run.checkpoints / "step_00000020" / "MANIFEST.json").read_text()
    sha256 = verify(run.checkpoints / "step_00000020").state["tokenizer_sha256"]
    assert sha256 in manifest_text
    edited = manifest_text.replace(sha256, "0" * 64)
    (run.checkpoints / "step_00000020" / "MANIFEST.json").write_text(edited)
    (run.checkpoints / "step_00000020" / COMMITTED).write_text(checksum(edited.encode()))
    with pytest.raises(CheckpointError, match="another tokenizer"):
        train(Job(), config, run)


def test_a_vocabulary_that_does_not_fit_is_refused(run):
    config, run = run
    smaller = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, vocab_size=280),
        data=dataclasses.replace(config.data, tokenizer=str(run.data / "tokenizer")),
    )
    with pytest.raises(ConfigError, match=r"model.vocab_size \(280\) is below the tokenizer's 300"):
        train(Job(), smaller, run)


def test_a_loss_that_is_not_finite_ends_the_run_with_the_way_out(tmp_path):
    config, run = make_run(tmp_path, "run", ("optim.lr=1e30", "optim.warmup_steps=1"))
    with pytest.raises(TrainingDiverged, match="try a smaller optim.lr"):
        train(Job(), config, run)


def test_old_checkpoints_go_and_the_kept_stay(tmp_path):
    overrides = ("checkpoint.interval=2", "checkpoint.keep_last=2", "checkpoint.keep_every=8")
    config, run = make_run(tmp_path, "run", overrides)
    train(Job(), config, run)
    steps = [int(path.name[5:]) for path in committed_checkpoints(run.checkpoints)]
    assert steps == [8, 16, 18, 20]
