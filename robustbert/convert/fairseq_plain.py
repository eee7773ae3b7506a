"""An independent reader of fairseq's model.pt, dict.txt and BPE files, in plain PyTorch, from their published format.

It serves the gate of a conversion where fairseq cannot be imported, so it shares no tensor names, no layout and no model
code with what it checks: it goes from fairseq's files to logits by itself. B batch, S sequence, H hidden, V vocabulary.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F

_OFFSET = 4  # <s>, <pad>, </s>, <unk> come before the first line of dict.txt
_PAD = 1
_ROOTS = ("encoder.", "decoder.")  # what precedes a name: now, and in old versions


class PlainFairseqModel:
    """model: fairseq's state dict, of any of its versions; num_heads: of args or cfg."""

    def __init__(self, model: dict[str, torch.Tensor], num_heads: int):
        self._model = {name.split(".", 1)[1]: tensor.float() for name, tensor in model.items() if name.startswith(_ROOTS)}
        self._heads = {name: tensor.float() for name, tensor in model.items() if name.startswith("classification_heads.")}
        self._num_heads = num_heads
        layers = (name.split(".")[2] for name in self._model if name.startswith("sentence_encoder.layers."))
        self._num_layers = 1 + max(map(int, layers))

    def features(self, tokens_BS: torch.Tensor) -> torch.Tensor:
        """The encoder's output x_BSH. Padding is where the id is 1."""
        is_padding_BS = tokens_BS == _PAD
        positions_BS = torch.where(is_padding_BS, _PAD, (~is_padding_BS).cumsum(1) + _PAD)
        x_BSH = self._get("sentence_encoder.embed_tokens.weight")[tokens_BS]
        x_BSH = x_BSH + self._get("sentence_encoder.embed_positions.weight")[positions_BS]
        x_BSH = self._norm(x_BSH, "sentence_encoder.layernorm_embedding", "sentence_encoder.emb_layer_norm")
        for number in range(self._num_layers):
            layer = f"sentence_encoder.layers.{number}"
            attended_BSH = self._attend(x_BSH, f"{layer}.self_attn", is_padding_BS)
            x_BSH = self._norm(x_BSH + attended_BSH, f"{layer}.self_attn_layer_norm")
            inner = F.gelu(self._linear(x_BSH, f"{layer}.fc1"))
            x_BSH = self._norm(x_BSH + self._linear(inner, f"{layer}.fc2"), f"{layer}.final_layer_norm")
        return x_BSH

    def predict_tokens(self, x_BSH: torch.Tensor) -> torch.Tensor:
        """The masked language model's logits_BSV of features."""
        x_BSH = self._norm(F.gelu(self._linear(x_BSH, "lm_head.dense")), "lm_head.layer_norm")
        projection = self._get("lm_head.weight", "sentence_encoder.embed_tokens.weight")
        return F.linear(x_BSH, projection, self._get("lm_head.bias"))

    def classify(self, x_BSH: torch.Tensor, head: str) -> torch.Tensor | None:
        """A classification head's logits of features; None where the model has no such head."""
        part = {name.removeprefix(f"classification_heads.{head}."): tensor for name, tensor in self._heads.items()}
        if "dense.weight" not in part:
            return None
        pooled_BH = torch.tanh(F.linear(x_BSH[:, 0], part["dense.weight"], part["dense.bias"]))
        return F.linear(pooled_BH, part["out_proj.weight"], part["out_proj.bias"])

    def _get(self, *names: str) -> torch.Tensor:
        return next(self._model[name] for name in names if name in self._model)

    def _linear(self, x: torch.Tensor, module: str) -> torch.Tensor:
        return F.linear(x, self._get(f"{module}.weight"), self._get(f"{module}.bias"))

    def _norm(self, x: torch.Tensor, *modules: str) -> torch.Tensor:
        weight, bias = (self._get(*(f"{module}.{kind}" for module in modules)) for kind in ("weight", "bias"))
        return F.layer_norm(x, weight.shape, weight, bias)

    def _attend(self, x_BSH: torch.Tensor, module: str, is_padding_BS: torch.Tensor) -> torch.Tensor:
        if f"{module}.in_proj_weight" in self._model:
            weight, bias = self._get(f"{module}.in_proj_weight"), self._get(f"{module}.in_proj_bias")
        else:
            kinds = ("weight", "bias")
            weight, bias = (torch.cat([self._get(f"{module}.{p}_proj.{kind}") for p in "qkv"]) for kind in kinds)
        x_SBH = x_BSH.transpose(0, 1)
        out, _ = F.multi_head_attention_forward(
            x_SBH, x_SBH, x_SBH, x_SBH.shape[2], self._num_heads, weight, bias, None, None, False, 0.0,
            self._get(f"{module}.out_proj.weight"), self._get(f"{module}.out_proj.bias"),
            training=False, key_padding_mask=is_padding_BS, need_weights=False,
        )  # fmt: skip
        return out.transpose(0, 1)



class PlainFairseqTokenizer:
    """Text to ids by encoder.json, vocab.bpe and dict.txt: first GPT-2's numbers, then each one's line, plus 4."""

    def __init__(self, bpe_folder: Path, dictionary: Path):
        from tokenizers import Tokenizer, models, pre_tokenizers

        merges = (bpe_folder / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:-1]
        vocabulary = json.loads((bpe_folder / "encoder.json").read_text(encoding="utf-8"))
        self._gpt2 = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(merge.split()) for merge in merges]))
        self._gpt2.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        lines = dictionary.read_text(encoding="utf-8").splitlines()
        self._id_of = {line.rsplit(" ", 1)[0]: number + _OFFSET for number, line in enumerate(lines)}

    def encode(self, text: str) -> list[int]:
        """<s>, the text's ids (3, <unk>, for what dict.txt lacks), </s>."""
        return [0, *(self._id_of.get(str(number), 3) for number in self._gpt2.encode(text).ids), 2]
