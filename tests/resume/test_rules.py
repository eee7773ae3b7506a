"""What becomes of a change to each key of the configuration: taken, taken and shown, or refused."""

import pytest

from robustbert.config import config_to_dict, load_config
from robustbert.optim.schedule import learning_rate
from robustbert.resume.changes import Trained, compare, flatten, own_refusals
from robustbert.resume.rules import RULES, Kind

CONFIG = """
run: {name: small}
model: {num_layers: 4, hidden_size: 32, ffn_hidden_size: 64, num_attention_heads: 4, max_sequence_length: 64, vocab_size: 300}
data: {tokenizer: bpe, train: [{text: a.txt}, {path: b}], valid: [{path: held_out}]}
optim: {lr: 1.0e-3, warmup_steps: 4}
train: {steps: 20, global_batch_size: 16, micro_batch_size: 2}
cluster: {processes_per_node: 4}
"""
# A change of each key and what must become of it; written down apart from the table that is tested.
FREE, SHOWN, REFUSED = "free", "shown", "refused"
EXPECTED = {
    "run.name": ("other", REFUSED),
    "run.dir": ("elsewhere", REFUSED),
    "run.seed": ("2", REFUSED),
    "model.preset": ("roberta-base", REFUSED),
    "model.num_layers": ("3", REFUSED),
    "model.hidden_size": ("64", REFUSED),
    "model.ffn_hidden_size": ("32", REFUSED),
    "model.num_attention_heads": ("2", REFUSED),
    "model.max_sequence_length": ("128 data.sequence_length=64", REFUSED),
    "model.vocab_size": ("301", REFUSED),
    "model.num_token_types": ("2", REFUSED),
    "model.next_sentence_head": ("true data.format=segment-pair", REFUSED),
    "model.layernorm_eps": ("1e-12", REFUSED),
    "model.init_std": ("0.01", REFUSED),
    "model.dropout": ("0.0", SHOWN),
    "model.attention_dropout": ("0.0", SHOWN),
    "model.compile": ("false", FREE),
    "model.pad_id": ("0", FREE),
    "data.tokenizer": ("other", REFUSED),
    "data.train": ("[{text: c.txt}, {path: b}]", REFUSED),
    "data.valid": ("[{path: other}]", SHOWN),
    "data.valid_fraction": ("0.1 data.valid=[]", REFUSED),
    "data.format": ("doc-sentences", REFUSED),
    "data.sequence_length": ("32", REFUSED),
    "data.masking.strategy": ("static", SHOWN),
    "data.masking.num_static_masks": ("5", SHOWN),
    "data.masking.probability": ("0.4", SHOWN),
    "data.masking.mask_share": ("0.5", SHOWN),
    "data.masking.random_share": ("0.2", SHOWN),
    "data.masking.whole_word": ("true", SHOWN),
    "data.pad_to_multiple": ("8", FREE),
    "data.num_workers": ("0", FREE),
    "data.prepare_workers": ("2", FREE),
    "data.index_dir": ("elsewhere", FREE),
    "optim.name": ("lamb", SHOWN),
    "optim.lr": ("2e-3", SHOWN),
    "optim.betas": ("[0.9, 0.999]", SHOWN),
    "optim.eps": ("1e-8", SHOWN),
    "optim.weight_decay": ("0.1", SHOWN),
    "optim.warmup_steps": ("2", SHOWN),
    "optim.clip_grad": ("1.0", SHOWN),
    "optim.initial_loss_scale": ("1024", SHOWN),
    "optim.min_loss_scale": ("1.0", SHOWN),
    "optim.loss_scale_window": ("500", SHOWN),
    "optim.loss_scale_hysteresis": ("2", SHOWN),
    "train.steps": ("24", SHOWN),
    "train.global_batch_size": ("32", SHOWN),
    "train.micro_batch_size": ("4", FREE),
    "train.log_interval": ("5", FREE),
    "train.eval_interval": ("5", FREE),
    "train.eval_sequences": ("64", SHOWN),
    "train.cuda_graphs": ("true", FREE),
    "train.start_from": ("runs/other", REFUSED),
    "train.deterministic": ("true", FREE),
    "precision": ("bf16", SHOWN),
    "parallel.tensor": ("2", FREE),
    "parallel.pipeline": ("2", FREE),
    "parallel.sequence": ("true parallel.tensor=2", FREE),
    "parallel.distributed_optimizer": ("false", FREE),
    "parallel.recompute": ("full", FREE),
    "checkpoint.interval": ("7", FREE),
    "checkpoint.keep_last": ("1", FREE),
    "checkpoint.keep_every": ("2000", FREE),
    "checkpoint.asynchronous": ("false", FREE),
    "checkpoint.retries": ("0", FREE),
    "fault_tolerance.start_over": ("true", FREE),
    "fault_tolerance.min_nodes": ("1", FREE),
    "fault_tolerance.replica_check_interval": ("5", FREE),
    **{
        f"fault_tolerance.{key}": ("7", FREE)
        for key in ("max_restarts", "hang_timeout_s", "startup_timeout_s", "silence_timeout_s", "stop_grace_s", "max_node_failures")
    },
    **{f"fault_tolerance.{key}": ("7", FREE) for key in ("max_rollbacks", "spike_factor", "spike_window")},
    "cluster.scheduler": ("mpi", FREE),
    "cluster.nodes": ("2", FREE),
    "cluster.processes_per_node": ("2", FREE),
    "cluster.hosts": ("[n1]", FREE),
    "cluster.hostfile": ("hosts.txt", FREE),
    "cluster.remote_shell": ("rsh", FREE),
    "cluster.exclude": ("[n2]", FREE),
    "cluster.gpus_per_node": ("4", FREE),
    "cluster.spare_nodes": ("1", FREE),
    "cluster.partition": ("gpu", FREE),
    "cluster.account": ("nlp", FREE),
    "cluster.time_limit": ("60", FREE),
    "cluster.notice_s": ("60", FREE),
    "cluster.requeue": ("false", FREE),
    "cluster.sbatch_options": ("[--constraint=v100]", FREE),
    "monitoring.prometheus_port": ("null", FREE),
    "monitoring.bind_address": ("0.0.0.0", FREE),
    "monitoring.tensorboard": ("true", FREE),
    "monitoring.push_gateway": ("http://n1", FREE),
    "monitoring.collectives_interval": ("5", FREE),
    "monitoring.straggler_factor": ("2.0", FREE),
    "monitoring.straggler_after_s": ("5.0", FREE),
}


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("config") / "small.yaml"
    file.write_text(CONFIG)
    return file


def contents(config) -> dict:
    """As if every corpus held what its name says."""
    return {kind: [corpus.source for corpus in getattr(config.data, kind)] for kind in ("train", "valid")}


def trained(config, step=10) -> Trained:
    return Trained(step, config_to_dict(config), {"data": contents(config), "samples_per_step": 16, "tokenizer_sha256": "a" * 64})


def changed(config_file, step, *overrides):
    """(former configuration, new one, what compare says)."""
    former, config = load_config(config_file), load_config(config_file, overrides)
    return former, config, compare(trained(former, step), config, contents(config), "b" * 64)


def test_every_key_of_the_configuration_has_a_rule_and_a_case_here(config_file):
    keys = flatten(config_to_dict(load_config(config_file))).keys()
    assert keys == RULES.keys(), keys ^ RULES.keys()
    assert keys == EXPECTED.keys(), keys ^ EXPECTED.keys()


@pytest.mark.parametrize("key", EXPECTED)
def test_a_change_is_taken_shown_or_refused(key, config_file):
    values, outcome = EXPECTED[key]
    first, *others = values.split(" ") if not values.startswith("[") else [values]
    former, config, found = changed(config_file, 10, f"{key}={first}", *others)
    assert flatten(config_to_dict(former))[key] != flatten(config_to_dict(config))[key], "the case changes nothing"
    refusals, changes = own_refusals(former, config) + found.refusals, found.changes
    for text in [refusal.text for refusal in refusals] + [change.text for change in changes]:
        assert text.startswith(tuple(RULES)) and "\n" not in text and ":" in text
    if outcome == FREE:
        assert not refusals and not changes
    elif outcome == SHOWN:
        assert not refusals and [change.key for change in changes] == [key] and " -> " in changes[0].text
    else:
        followed = "data.format" if key == "model.next_sentence_head" else key  # a format of pairs sets the head
        assert followed in [refusal.key for refusal in refusals]


def test_rules_that_refuse_or_show_say_why():
    for key, rule in RULES.items():
        assert bool(rule.why or rule.by_schedule) == (rule.kind in (Kind.LEARNS, Kind.FIXED, Kind.OWN)), key


def test_nothing_changed_is_nothing_said(config_file):
    _, _, found = changed(config_file, 10)
    assert not found.changes and not found.refusals and not found.hints


def test_a_checkpoint_of_an_older_version_that_knows_fewer_keys_is_compared_by_those(config_file):
    config = load_config(config_file)
    old = config_to_dict(config)
    del old["data"]["masking"]["whole_word"], old["train"]["deterministic"]
    for entry in old["data"]["train"]:
        del entry["reader"]
    found = compare(Trained(10, old, {}), load_config(config_file, ["data.masking.whole_word=true"]), contents(config))
    assert not found.changes and not found.refusals


def test_the_same_tokenizer_in_another_place_is_the_same(config_file):
    former = load_config(config_file)
    config = load_config(config_file, ["data.tokenizer=moved/bpe"])
    assert not compare(trained(former), config, contents(config), "a" * 64).refusals
    assert compare(trained(former), config, contents(config), None).refusals, "nobody knows what it holds"


# A finished run of 20 steps: peak 1e-3, warm-up 4, so its last update, the 20th, had 1e-3 * (20 - 19) / (20 - 4) = 6.25e-5.
def test_more_steps_tell_that_the_rate_jumps_and_the_rate_that_does_not(config_file):
    _, config, found = changed(config_file, 20, "train.steps=24")
    (change,), (hint,) = found.changes, found.hints
    assert "from 6.25e-05 at step 20" in change.text and "to 0.0002 at step 21" in change.text and "0 at step 24" in change.text
    assert learning_rate(config.optim, 20, 24) == pytest.approx(2e-4)
    assert "3.2 times" in hint
    lr = hint.rpartition("optim.lr=")[2]
    _, gentle, again = changed(config_file, 20, "train.steps=24", f"optim.lr={lr}")
    assert learning_rate(gentle.optim, 20, 24) == pytest.approx(6.25e-5) and not again.hints
    assert [change.key for change in again.changes] == ["optim.lr", "train.steps"]


def test_a_rate_within_a_schedule_is_compared_with_what_it_would_have_been(config_file):
    _, _, found = changed(config_file, 12, "optim.lr=2e-3")
    # Step 13 of 20: 1e-3 * (20 - 12) / 16 and twice that; step 12 had 1e-3 * (20 - 11) / 16 = 5.625e-4.
    assert "the learning rate at step 13 goes from 0.0005 to 0.001, at step 12 it was 0.000563" in found.changes[0].text


@pytest.mark.parametrize(("steps", "outcome"), [(11, REFUSED), (12, "ends at step 12"), (13, SHOWN)])
def test_a_run_does_not_get_shorter_than_it_is(steps, outcome, config_file):
    _, _, found = changed(config_file, 12, f"train.steps={steps}")
    assert bool(found.refusals) == (outcome == REFUSED)
    if outcome == REFUSED:
        assert found.refusals[0].text.startswith("train.steps: 20 -> 11: the run has done 12 steps")
    else:
        assert outcome == SHOWN or outcome in found.changes[0].text


def test_another_batch_size_is_refused_where_the_checkpoint_does_not_know_its_place(config_file):
    former, config = load_config(config_file), load_config(config_file, ["train.global_batch_size=32"])
    found = compare(Trained(10, config_to_dict(former), {}), config, contents(config))
    assert [refusal.key for refusal in found.refusals] == ["train.global_batch_size"]
