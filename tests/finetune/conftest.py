"""A tiny random model with a tokenizer of its own, as tools/convert would have written it."""

from pathlib import Path

import pytest

from tests.finetune.tasks.real_data import build_reader_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A folder of RobertaForMaskedLM with 2 layers of 32, random weights, and a byte-level BPE of the prose in `this`."""
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model", hidden_size=32)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory) -> Path:
    """As tiny_model, with 2 layers of 64: enough to learn 64 examples by heart."""
    return build_tiny_model(tmp_path_factory.mktemp("small") / "model", hidden_size=64)


def build_tiny_model(folder: Path, hidden_size: int) -> Path:
    from robustbert.data.tokenizer import train_tokenizer

    words = "the film was bright , lovely , warm or dull ; a house , river , song , garden , letter , storm , market . It is odd"
    tokenizer = train_tokenizer(iter([f" {words} {word}" for word in words.split() for _ in range(3)]), 300)
    return build_reader_model(folder, tokenizer, hidden_size, num_heads=2, num_positions=128)
