"""The gate of every conversion: source and result, given the same tokens, must give the same logits."""

from pathlib import Path

import torch

from robustbert.config import ModelConfig
from robustbert.convert.whole_model import WholeModel, model_with
from robustbert.parallel.mesh import Mesh


@torch.no_grad()
def compare_with_huggingface(whole: WholeModel, folder: Path, mesh: Mesh) -> float:
    """The largest absolute difference between our logits and those of RobertaForMaskedLM loaded from `folder`, in fp32.

    One row is padded, so that positions and attention masks count, too; padded positions are not compared.
    """
    from transformers import RobertaForMaskedLM

    tokens_BS, attended_BS = fixed_tokens(whole.config)
    token_types_BS = second_halves(tokens_BS) if whole.config.num_token_types > 1 else torch.zeros_like(tokens_BS)
    ours = model_with(whole, mesh)
    device = mesh.device.torch_device
    logits = ours(tokens_BS.to(device), attended_BS.to(device), token_types_BS=token_types_BS.to(device))
    if whole.config.next_sentence_head:
        logits = logits.logits_MV
    logits = logits.float().cpu()
    logits_BSV = logits.view(*tokens_BS.shape, -1)[..., : whole.config.vocab_size]
    theirs = RobertaForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
    expected_BSV = theirs(tokens_BS, attention_mask=attended_BS.long(), token_type_ids=token_types_BS).logits
    return (logits_BSV - expected_BSV)[attended_BS].abs().max().item()


def fixed_tokens(config: ModelConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """tokens_BS (int64) and attended_BS (bool): the same every time, over the whole vocabulary, one row padded."""
    length = min(config.max_sequence_length, 128)
    generator = torch.Generator().manual_seed(0)
    tokens_BS = torch.randint(4, config.vocab_size, (4, length), generator=generator)
    tokens_BS[tokens_BS == config.pad_id] = 4 + (config.pad_id == 4)
    tokens_BS[1, length * 2 // 3 :] = config.pad_id
    return tokens_BS, tokens_BS != config.pad_id


def second_halves(tokens_BS: torch.Tensor) -> torch.Tensor:
    """Token types: 1 on the second half of every row, else 0."""
    return (torch.arange(tokens_BS.shape[1]) >= tokens_BS.shape[1] // 2).long().expand_as(tokens_BS).contiguous()
