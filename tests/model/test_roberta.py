"""The model is RoBERTa: Hugging Face's logits and loss from the same weights."""

import pytest
import torch
from transformers import RobertaConfig, RobertaForMaskedLM

from robustbert.config import ModelConfig, ParallelConfig
from robustbert.convert.huggingface import from_huggingface, huggingface_config, model_config_of, to_huggingface
from robustbert.convert.whole_model import WholeModel, model_with, one_process_mesh, state_of
from robustbert.model.build import build_model
from robustbert.testing import run_on_ranks

SMALL = ModelConfig(
    num_layers=3, hidden_size=64, ffn_hidden_size=128, num_attention_heads=4, vocab_size=301, max_sequence_length=40
)
BASE = ModelConfig(preset="roberta-base", vocab_size=50265)
SPECIAL_IDS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}


def random_huggingface(config: ModelConfig, seed: int = 0) -> RobertaForMaskedLM:
    """Hugging Face's model with every tensor random, biases and LayerNorms too."""
    torch.manual_seed(seed)
    model = RobertaForMaskedLM(RobertaConfig(**huggingface_config(config, SPECIAL_IDS))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
        model.roberta.embeddings.token_type_embeddings.weight.zero_()
    return model


def tokens_with_padding(config: ModelConfig):
    """tokens_BS, attended_BS and flat masked positions, none of them on padding."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(5, config.vocab_size, (3, config.max_sequence_length), generator=generator)
    tokens[:, 0] = 0
    tokens[1, config.max_sequence_length // 2 :] = 1
    attended = tokens != 1
    chosen = (torch.rand(tokens.shape, generator=generator) < 0.2) & attended
    return tokens, attended, chosen.flatten().nonzero()[:, 0]


def compare(config: ModelConfig):
    theirs = random_huggingface(config)
    tokens, attended, positions = tokens_with_padding(config)
    whole = WholeModel(config, from_huggingface(theirs.state_dict(), config))
    with one_process_mesh() as mesh, torch.no_grad():
        ours = model_with(whole, mesh)
        logits = ours(tokens, attended.sum(1)).view(*tokens.shape, -1)
        assert torch.isneginf(logits[..., config.vocab_size :]).all(), "padded vocabulary rows take part"
        targets = torch.randint(5, config.vocab_size, (len(positions),), generator=torch.Generator().manual_seed(2))
        loss = ours(tokens, attended.sum(1), positions, targets_M=targets)
        labels = torch.full(tokens.shape, -100)
        labels.view(-1)[positions] = targets
        expected = theirs(tokens, attention_mask=attended.long(), labels=labels)
    difference = (logits[..., : config.vocab_size] - expected.logits)[attended].abs().max().item()
    print(f"largest difference of the logits {difference:.1e}, of the loss {abs(loss / len(positions) - expected.loss):.1e}")
    assert difference < 1e-4
    assert abs(loss / len(positions) - expected.loss) < 1e-4


def test_logits_and_loss_equal_hugging_faces():
    compare(SMALL)


@pytest.mark.slow
def test_logits_and_loss_equal_hugging_faces_at_roberta_base_shapes():
    compare(BASE)


def test_weights_are_bitwise_equal_there_and_back():
    theirs = random_huggingface(SMALL).state_dict()
    back = to_huggingface(from_huggingface(theirs, SMALL), SMALL)
    for name, tensor in back.items():
        assert tensor.equal(theirs[name]), name
    assert set(theirs) - set(back) <= {"lm_head.decoder.weight", "lm_head.decoder.bias"}  # tied to tensors that are there


def test_a_model_with_token_types_keeps_them():
    hugging_face = random_huggingface(SMALL)
    torch.nn.init.normal_(hugging_face.roberta.embeddings.token_type_embeddings.weight)
    theirs = hugging_face.state_dict()
    name = "roberta.embeddings.token_type_embeddings.weight"
    config = model_config_of(hugging_face.config.to_dict(), theirs)
    assert config.num_token_types == 1
    assert to_huggingface(from_huggingface(theirs, config), config)[name].equal(theirs[name])


def check_masked_logits_gradient(job):
    """With M = 0 masked tokens a pass still works and gives zero gradients on two tensor-parallel ranks."""
    from robustbert.device import Device
    from robustbert.parallel.mesh import open_mesh

    parallel = ParallelConfig(tensor=2)
    device = Device.detect(job)
    with device.joined(job, 60), open_mesh(device, parallel) as mesh:
        model = build_model(SMALL, parallel, mesh, seed=1).eval()
        tokens, attended, _ = tokens_with_padding(SMALL)
        nothing = torch.empty(0, dtype=torch.int64)
        loss = model(tokens, attended.sum(1), nothing, targets_M=nothing)
        loss.backward()
        return loss.item(), max(p.grad.abs().max().item() for p in model.parameters() if p.grad is not None)


def test_a_micro_batch_without_masked_tokens_has_no_loss_and_no_gradient():
    assert run_on_ranks(check_masked_logits_gradient, 2) == [(0.0, 0.0)] * 2


def test_the_seed_decides_the_weights():
    with one_process_mesh() as mesh:
        states = [state_of(build_model(SMALL, ParallelConfig(), mesh, seed=seed)) for seed in (1, 1, 2)]
    name = "layers.2.ffn.up.weight"
    assert states[0][name].equal(states[1][name]) and not states[0][name].equal(states[2][name])
    assert abs(states[0][name].std() - SMALL.init_std) < 0.001
    assert states[0]["embeddings.word_embeddings.weight"][SMALL.vocab_size :].eq(0).all()
