"""The next-sentence head: losses and gradients are those of Hugging Face's encoder with plain PyTorch heads."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from robustbert.config import ParallelConfig
from robustbert.convert.huggingface import from_huggingface, model_config_of, to_huggingface
from robustbert.convert.whole_model import one_process_mesh
from robustbert.model.build import build_model
from robustbert.parallel.data_parallel import build_data_parallel
from robustbert.parallel.pipeline import forward_backward
from tests.model.test_roberta import random_huggingface
from tests.parallel.small_training import PAIRS, batches_of_step

CONFIG = dataclasses.replace(PAIRS.model, num_layers=2)
POOLER, CLASSIFIER = "roberta.pooler.dense", "cls.seq_relationship"


def random_pair_model():
    """Hugging Face's masked language model with two token types, and the tensors of BERT's pooler and classifier."""
    theirs = random_huggingface(CONFIG)
    generator = torch.Generator().manual_seed(5)
    hidden = CONFIG.hidden_size
    shapes = {f"{POOLER}.weight": (hidden, hidden), f"{POOLER}.bias": (hidden,)}
    shapes |= {f"{CLASSIFIER}.weight": (2, hidden), f"{CLASSIFIER}.bias": (2,)}
    extra = {name: torch.randn(shape, generator=generator) * 0.2 for name, shape in shapes.items()}
    return theirs, {name: tensor.requires_grad_() for name, tensor in extra.items()}


def expected_loss(theirs, extra, batches):
    """The mean over masked tokens plus the mean over pairs, of all micro-batches together."""
    predictions, pairs, num_right = [], [], 0
    for batch in batches:
        hidden_BSH = theirs.roberta(
            batch.tokens_BS, attention_mask=batch.attended_BS.long(), token_type_ids=batch.token_types_BS
        ).last_hidden_state
        logits = theirs.lm_head(hidden_BSH).flatten(0, 1)[batch.masked_positions_M]
        predictions.append(F.cross_entropy(logits, batch.targets_M, reduction="none"))
        pooled = torch.tanh(F.linear(hidden_BSH[:, 0], extra[f"{POOLER}.weight"], extra[f"{POOLER}.bias"]))
        logits = F.linear(pooled, extra[f"{CLASSIFIER}.weight"], extra[f"{CLASSIFIER}.bias"])
        real = batch.is_next_B >= 0
        classes = 1 - batch.is_next_B[real]  # BERT's order: 0 follows, 1 does not
        pairs.append(F.cross_entropy(logits[real], classes, reduction="none"))
        num_right += int((logits[real].argmax(1) == classes).sum())
    return torch.cat(predictions).mean(), torch.cat(pairs).mean(), num_right


def test_losses_and_gradients_equal_plain_pytorch():
    theirs, extra = random_pair_model()
    theirs.eval()
    batches = batches_of_step(1, has_pairs=True)
    masked_loss, pair_loss, num_right = expected_loss(theirs, extra, batches)
    (masked_loss + pair_loss).backward()
    tensors = {name: parameter.detach() for name, parameter in theirs.state_dict().items()} | extra
    with one_process_mesh() as mesh:
        model = build_model(CONFIG, ParallelConfig(), mesh, variable_lengths=True)
        state = from_huggingface({name: tensor.detach() for name, tensor in tensors.items()}, CONFIG)
        with torch.no_grad():
            for name, parameter in model.named_shards():
                parameter.copy_(state[name])
        wrapped = build_data_parallel(model, ParallelConfig(distributed_optimizer=False), mesh)
        total = forward_backward(wrapped, batches, mesh)
        wrapped.normalise_gradients()
        gradients = {name: parameter.main_grad.clone() for name, parameter in model.named_shards()}
    assert total.mean == pytest.approx(masked_loss.item(), rel=1e-5)
    assert total.next_sentence_loss / total.num_pairs == pytest.approx(pair_loss.item(), rel=1e-5)
    assert (total.num_pairs, total.num_right) == (sum((b.is_next_B >= 0).sum().item() for b in batches), num_right)
    ours = to_huggingface(gradients, CONFIG)
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    expected |= {name: tensor.grad for name, tensor in extra.items()}
    compared = [name for name, gradient in expected.items() if gradient is not None and "decoder" not in name]
    assert {f"{POOLER}.weight", f"{CLASSIFIER}.bias", "roberta.embeddings.token_type_embeddings.weight"} <= set(compared)
    for name in compared:
        difference = (ours[name] - expected[name]).abs().max().item()
        assert difference < 2e-6 + 1e-4 * expected[name].abs().max().item(), (name, difference)


def test_the_heads_weights_are_bitwise_equal_there_and_back():
    theirs, extra = random_pair_model()
    torch.nn.init.normal_(theirs.roberta.embeddings.token_type_embeddings.weight)
    state = theirs.state_dict() | {name: tensor.detach() for name, tensor in extra.items()}
    config = model_config_of(theirs.config.to_dict(), state)
    assert config.next_sentence_head and config.num_token_types == 2
    back = to_huggingface(from_huggingface(state, config), config)
    for name, tensor in back.items():
        assert tensor.equal(state[name]), name
    assert set(extra) <= set(back)
