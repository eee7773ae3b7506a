"""The keys of data.*: defaults, and one line with the way out."""

import dataclasses

import pytest

from robustbert.config import (
    FORMATS_WITH_PAIRS,
    ClusterConfig,
    ConfigError,
    CorpusConfig,
    DataConfig,
    MaskingConfig,
    ModelConfig,
    ParallelConfig,
    RunConfig,
    TrainTokenizerConfig,
)
from robustbert.config.yaml_file import build_section

VALUES = {"tokenizer": "folder", "train": [{"path": "corpus"}]}


def test_defaults_are_robertas():
    config = DataConfig("folder", (CorpusConfig(path="corpus"),))
    assert (config.format, config.has_pairs, config.pad_to_multiple) == ("full-sentences", False, 16)
    assert (config.masking.strategy, config.masking.num_static_masks, config.masking.whole_word) == ("dynamic", 10, False)
    assert TrainTokenizerConfig(300) == TrainTokenizerConfig(300, "byte-bpe", None)


@pytest.mark.parametrize("packing_format", ["full-sentences", "doc-sentences", *FORMATS_WITH_PAIRS])
def test_the_papers_formats_and_text_encodings_can_be_named(packing_format):
    tokenizer = {"train": {"vocab_size": 200, "kind": "wordpiece", "lowercase": False}}
    values = {"tokenizer": tokenizer, "train": [{"text": "some.txt"}], "format": packing_format}
    config = build_section(DataConfig, values | {"masking": {"strategy": "static", "num_static_masks": 5}}, "data")
    assert config.has_pairs == (packing_format in ("segment-pair", "sentence-pair"))
    assert dataclasses.asdict(config.tokenizer.train) == {"vocab_size": 200, "kind": "wordpiece", "lowercase": False}


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (DataConfig, VALUES | {"format": "sentence-pairs"}, "did you mean sentence-pair"),
        (DataConfig, VALUES | {"pad_to_multiple": 0}, "data.pad_to_multiple must be above 0"),
        (MaskingConfig, {"num_static_masks": 0}, "num_static_masks must be above 0"),
        (TrainTokenizerConfig, {"vocab_size": 260}, "at least 261"),
        (TrainTokenizerConfig, {"vocab_size": 50, "kind": "wordpiece"}, "at least 100"),
        (TrainTokenizerConfig, {"vocab_size": 300, "lowercase": True}, "goes with kind: wordpiece"),
    ],
)
def test_wrong_values_are_refused(kind, values, message):
    with pytest.raises(ConfigError, match=message) as error:
        build_section(kind, values, "data")
    assert "\n" not in str(error.value)


def test_the_padding_must_suit_sequence_parallelism_where_widths_vary():
    def run(**options):
        data = DataConfig("folder", (CorpusConfig(path="corpus"),), pad_to_multiple=2, **options)
        layout = {"parallel": ParallelConfig(tensor=4, sequence=True), "cluster": ClusterConfig(processes_per_node=4)}
        return RunConfig(ModelConfig("roberta-base"), data, **layout)

    with pytest.raises(ConfigError, match=r"pad_to_multiple \(2\) must be a multiple of parallel.tensor \(4\); use 16"):
        run(format="doc-sentences")
    assert run().data.sequence_length == 512  # of FULL-SENTENCES every row has the same width
