"""A tiny random model with a tokenizer of its own, as tools/convert would have written it."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A folder of RobertaForMaskedLM with 2 layers of 32, random weights, and a byte-level BPE of the prose in `this`."""
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model", hidden_size=32)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory) -> Path:
    """As tiny_model, with 2 layers of 64: enough to learn 64 examples by heart."""
    return build_tiny_model(tmp_path_factory.mktemp("small") / "model", hidden_size=64)


def build_tiny_model(folder: Path, hidden_size: int) -> Path:
    import torch
    from transformers import RobertaConfig, RobertaForMaskedLM

    from robustbert.data.tokenizer import train_tokenizer

    words = "the film was bright , lovely , warm or dull ; a house , river , song , garden , letter , storm , market . It is odd"
    tokenizer = train_tokenizer(iter([f" {words} {word}" for word in words.split() for _ in range(3)]), 300)
    tokenizer.save(folder)
    config = RobertaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * hidden_size,
        max_position_embeddings=130,
        type_vocab_size=1,
    )
    torch.manual_seed(0)
    RobertaForMaskedLM(config).save_pretrained(folder)
    return folder
