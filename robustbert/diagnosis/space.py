"""Whether a run's checkpoints find room."""

from robustbert.config import ModelConfig, RunConfig

_BYTES_OF_A_PARAMETER = 12  # in a checkpoint: weight and two moments, fp32


def find_lack_of_space(config: RunConfig, free_bytes: int) -> str | None:
    """What is wrong where not even one checkpoint fits; None where it does, or where the vocabulary is not known."""
    if config.model.vocab_size is None:
        return None
    wanted = checkpoint_bytes(config.model)
    if free_bytes >= wanted:
        return None
    return f"only {free_bytes / 2**30:.2f} GiB are free for the run, a checkpoint takes about {wanted / 2**30:.2f} GiB"


def checkpoint_bytes(model: ModelConfig) -> int:
    """About the size of one checkpoint: the parameters of encoder, embeddings and head; model.vocab_size must be set."""
    hidden, ffn = model.hidden_size, model.ffn_hidden_size
    layer = 4 * hidden**2 + 4 * hidden + 2 * hidden * ffn + ffn + hidden + 4 * hidden
    rows = model.padded_vocab_size + model.max_sequence_length + model.first_position + model.num_token_types
    heads = (2 if model.next_sentence_head else 1) * (hidden**2 + 3 * hidden) + model.padded_vocab_size
    return _BYTES_OF_A_PARAMETER * (model.num_layers * layer + rows * hidden + heads + 2 * hidden)
