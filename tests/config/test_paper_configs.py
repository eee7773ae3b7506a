"""configs/paper: one file a row of the paper's tables, and each of them trains."""

import math
from pathlib import Path

import pytest

from robustbert.config import load_config
from robustbert.data.prepare import prepare_run
from robustbert.job import Job
from robustbert.run_directory import RunDirectory
from robustbert.train.pretrain import pretrain
from tests.data.conftest import make_text

PAPER = Path(__file__).resolve().parents[2] / "configs" / "paper"
BASE, LARGE = "roberta-base", "roberta-large"
# name: (format, masking, preset, batch size, steps, learning rate, corpora)
ROWS = {
    "table1_static": ("segment-pair", "static", BASE, 256, 1_000_000, 1e-4, 2),
    "table1_dynamic": ("segment-pair", "dynamic", BASE, 256, 1_000_000, 1e-4, 2),
    "table2_segment_pair": ("segment-pair", "dynamic", BASE, 256, 1_000_000, 1e-4, 2),
    "table2_sentence_pair": ("sentence-pair", "dynamic", BASE, 256, 1_000_000, 1e-4, 2),
    "table2_full_sentences": ("full-sentences", "dynamic", BASE, 256, 1_000_000, 1e-4, 2),
    "table2_doc_sentences": ("doc-sentences", "dynamic", BASE, 256, 1_000_000, 1e-4, 2),
    "table3_256": ("full-sentences", "dynamic", BASE, 256, 1_000_000, 1e-4, 2),
    "table3_2k": ("full-sentences", "dynamic", BASE, 2048, 125_000, 7e-4, 2),
    "table3_8k": ("full-sentences", "dynamic", BASE, 8192, 31_000, 1e-3, 2),
    "table4_books_wiki": ("full-sentences", "dynamic", LARGE, 8192, 100_000, 4e-4, 2),
    "table4_additional_data": ("full-sentences", "dynamic", LARGE, 8192, 100_000, 4e-4, 5),
    "table4_longer": ("full-sentences", "dynamic", LARGE, 8192, 300_000, 4e-4, 5),
    "table4_even_longer": ("full-sentences", "dynamic", LARGE, 8192, 500_000, 4e-4, 5),
    "section4_4_wordpiece": ("full-sentences", "dynamic", BASE, 256, 1_000_000, 1e-4, 2),
}
# What makes a row small: everything that is not its format, masks or optimizer.
SMALL = (
    "model={num_layers: 2, hidden_size: 32, ffn_hidden_size: 64, num_attention_heads: 4, max_sequence_length: 64}",
    "data.sequence_length=64",
    "data.valid=[]",
    "data.valid_fraction=0.1",
    "data.prepare_workers=1",
    "optim.warmup_steps=2",
    "train={steps: 4, global_batch_size: 8, micro_batch_size: 4, log_interval: 1, eval_interval: 100, eval_sequences: 8}",
    "precision=fp32",
    "checkpoint={interval: 100, keep_last: 1, keep_every: null}",
    "cluster={scheduler: local, nodes: 1, processes_per_node: 1}",
)


def test_there_is_a_file_for_every_row_and_no_other():
    assert {path.stem for path in PAPER.glob("*.yaml")} == {*ROWS, "bert_base"}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_says_what_the_paper_says(name):
    config = load_config(PAPER / f"{name}.yaml")
    assert config.run.name == name
    assert (
        config.data.format,
        config.data.masking.strategy,
        config.model.preset,
        config.train.global_batch_size,
        config.train.steps,
        config.optim.lr,
        len(config.data.train),
    ) == ROWS[name]
    assert config.data.masking.probability == 0.15 and config.data.masking.num_static_masks == 10
    assert config.optim.eps == 1e-6 and config.optim.weight_decay == 0.01 and config.data.sequence_length == 512
    assert config.model.next_sentence_head == config.data.format.endswith("pair")


@pytest.mark.parametrize("name", ROWS)
def test_a_row_trains_on_a_small_corpus(name, tmp_path):
    (tmp_path / "text.txt").write_text(make_text(120))
    kind = "wordpiece" if "wordpiece" in name else "byte-bpe"
    overrides = (
        *SMALL,
        f"run.dir={tmp_path}",
        f"data.train=[{{text: {tmp_path / 'text.txt'}}}]",
        f"data.tokenizer={{train: {{vocab_size: {110 if kind == 'wordpiece' else 300}, kind: {kind}}}}}",
    )
    config = load_config(PAPER / f"{name}.yaml", overrides)
    run = RunDirectory(tmp_path / name)
    run.logs.mkdir(parents=True)
    prepare_run(config.data, run.data)
    assert pretrain(config, Job(), run) == "finished"
    lines = run.metrics()
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(math.isfinite(line["loss"]) for line in lines)
    assert all(("next_sentence_loss" in line) == config.data.has_pairs for line in lines)
    assert lines[-1]["corpus_samples"].keys() == {str(tmp_path / "text.txt")}
    full = 8 * 64 * 4  # tokens of four steps of blocks without a gap
    assert 0.65 * full < lines[-1]["tokens"] <= 1.25 * full
