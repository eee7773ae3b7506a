"""The configuration: inheritance, overrides, and one clear line for whatever cannot be used."""

from pathlib import Path

import pytest

from robustbert.config import ConfigError, dump_config, load_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
MINIMAL = """
model: {num_layers: 2, hidden_size: 32, ffn_hidden_size: 64, num_attention_heads: 4, max_sequence_length: 32}
data: {tokenizer: some/folder, train: [{path: some/prefix}]}
train: {steps: 20, global_batch_size: 8, micro_batch_size: 2}
optim: {warmup_steps: 5}
"""


@pytest.fixture
def minimal(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(MINIMAL)
    return path


def test_defaults_are_the_papers():
    config = load_config(CONFIGS / "large_500k.yaml")
    model, optim, train = config.model, config.optim, config.train
    assert (model.num_layers, model.hidden_size, model.ffn_hidden_size, model.num_attention_heads) == (24, 1024, 4096, 16)
    assert (model.dropout, model.attention_dropout, model.max_sequence_length) == (0.1, 0.1, 512)
    assert (optim.warmup_steps, optim.lr, optim.weight_decay) == (30_000, 4e-4, 0.01)
    assert (optim.eps, optim.betas, optim.clip_grad) == (1e-6, (0.9, 0.98), 0.0)
    assert (train.steps, train.global_batch_size) == (500_000, 8192)
    assert config.cluster.num_processes == 1024 and config.precision == "fp16"


def test_base_500k_is_table_9():
    config = load_config(CONFIGS / "base_500k.yaml")
    model, optim = config.model, config.optim
    assert (model.num_layers, model.hidden_size, model.ffn_hidden_size, model.num_attention_heads) == (12, 768, 3072, 12)
    assert (optim.warmup_steps, optim.lr, config.train.steps) == (24_000, 6e-4, 500_000)


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_loads_and_is_written_back_equal(path, tmp_path):
    config = load_config(path)
    (tmp_path / "again.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "again.yaml") == config


def test_the_name_is_the_files_unless_given(minimal):
    assert load_config(minimal).run.name == "small"
    assert load_config(minimal, ["run.name=other"]).run.name == "other"


def test_base_is_overridden_key_by_key(minimal):
    derived = minimal.with_name("derived.yaml")
    derived.write_text("base: small.yaml\noptim: {lr: 1e-3}\n")
    config = load_config(derived)
    assert config.optim.lr == 1e-3 and config.optim.warmup_steps == 5


def test_overrides_are_yaml(minimal):
    config = load_config(minimal, ["optim.lr=4e-4", "optim.betas=[0.9, 0.99]", "parallel.distributed_optimizer=false"])
    assert config.optim.lr == 4e-4 and config.optim.betas == (0.9, 0.99) and not config.parallel.distributed_optimizer


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optm.lr=1", "unknown key optm; did you mean optim?"),
        ("optim.learning_rate=1", "unknown key optim.learning_rate"),
        ("train.step=3", "unknown key train.step; did you mean steps?"),
        ("train.steps=1.5", "train.steps must be a whole number, it is 1.5"),
        ("parallel.sequence=yes please", "parallel.sequence must be true or false"),
        ("precision=fp61", "precision must be one of fp32, bf16, fp16; it is 'fp61'"),
        ("model.compile=ture", "model.compile must be one of auto, true, false; it is 'ture'; did you mean true?"),
        ("model.compile=1", "model.compile must be one of auto, true, false; it is 1"),
        ("model.compile=0", "model.compile must be one of auto, true, false; it is 0"),
        ("train.global_batch_size=7", "must be a multiple of train.micro_batch_size (2) x data-parallel size (1) = 2; use 6 or 8"),
        ("model.hidden_size=33", "model.hidden_size (33) must be a multiple of model.num_attention_heads (4); use 36"),
        ("parallel.tensor=3", "parallel.tensor (3) must divide 128"),
        ("parallel.pipeline=4", "model.num_layers (2) must be a multiple of parallel.pipeline (4)"),
        ("cluster.processes_per_node=3", "data-parallel size (3) = 6; use 6 or 12"),
        ("data.train=[]", "data.train names no corpus"),
        ("monitoring.prometheus_port=70000", "monitoring.prometheus_port must lie between 1 and 65535"),
        ("monitoring.push_gateway=gateway:9091", "is no URL: it begins with http:// or https://"),
        ("monitoring.collectives_interval=0", "monitoring.collectives_interval must be above 0"),
        ("monitoring.straggler_factor=1", "monitoring.straggler_factor must be above 1"),
        ("data.train=[{path: a, text: b}]", "either `path` (indexed data) or `text` (raw text)"),
        ("data.sequence_length=64", "data.sequence_length (64) is above model.max_sequence_length (32)"),
        ("optim.warmup_steps=20", "optim.warmup_steps (20) must be below train.steps (20)"),
        ("parallel.sequence=true", "it needs parallel.tensor above 1"),
        ("run.name=../up", "must have no '/'"),
        ("optim.lr", "is not of the form section.key=value"),
    ],
)
def test_bad_values_are_answered_with_the_way_out(minimal, override, message):
    with pytest.raises(ConfigError) as error:
        load_config(minimal, [override])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_model_smaller_than_the_tokenizer_to_be_trained_is_refused(minimal):
    data = "data={tokenizer: {train: {vocab_size: 300}}, train: [{text: some.txt}]}"
    with pytest.raises(ConfigError, match=r"model.vocab_size \(280\) is below data.tokenizer.train.vocab_size \(300\)"):
        load_config(minimal, [data, "model.vocab_size=280"])


def test_a_missing_file_names_the_nearest(minimal):
    with pytest.raises(ConfigError, match="no such configuration file; did you mean .*small.yaml"):
        load_config(minimal.with_name("smal.yaml"))


def test_broken_yaml_and_circular_bases_are_one_line(tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("model: [1, 2\n")
    with pytest.raises(ConfigError, match="not YAML") as error:
        load_config(broken)
    assert "\n" not in str(error.value)
    circle = tmp_path / "circle.yaml"
    circle.write_text("base: circle.yaml\n")
    with pytest.raises(ConfigError, match="leads back to itself"):
        load_config(circle)
