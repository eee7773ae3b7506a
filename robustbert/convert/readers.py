"""What the gate of a conversion asks: text to ids by a format's own tokenizer, ids to logits by its own model.

Here for this project's own format and for Hugging Face's; fairseq_reader.py has fairseq's.

A model is in memory only while it computes. B batch, S sequence, V vocabulary.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from robustbert.convert.errors import ConversionError
from robustbert.convert.huggingface import NAMING, transformers_config
from robustbert.convert.tokenizer_files import transformers_has_tokenizer
from robustbert.convert.weight_files import read_weights
from robustbert.convert.whole_model import WholeModel, model_with
from robustbert.data.tokenizer import Tokenizer
from robustbert.data.tokenizer.with_transformers import read_with_transformers
from robustbert.parallel.mesh import Mesh


class Batch(NamedTuple):
    """tokens_BS int64, attended_BS bool, token_types_BS int64."""

    tokens_BS: torch.Tensor
    attended_BS: torch.Tensor
    token_types_BS: torch.Tensor


class Logits(NamedTuple):
    """tokens_BSV, and next_sentence_B2 where the model has such a head."""

    tokens_BSV: torch.Tensor
    next_sentence_B2: torch.Tensor | None


class Reader(Protocol):
    """name: the library, for the report (known once the logits are). has_token_types: whether it looks at them."""

    name: str
    has_token_types: bool

    def encode(self, texts: list[str]) -> list[list[int]] | None:
        """The ids with begin and end; None where the format brought no tokenizer."""

    def logits(self, batches: list[Batch]) -> list[Logits]:
        """In fp32 on the CPU."""


@dataclass
class RobustbertReader:
    """This project's model and tokenizer."""

    whole: WholeModel
    tokenizer: Tokenizer
    mesh: Mesh
    name = "robustbert"
    has_token_types = True

    def encode(self, texts):
        tokenizer = self.tokenizer
        return [[tokenizer.bos_id, *ids, tokenizer.eos_id] for ids in tokenizer.encode_batch(texts)]

    @torch.no_grad()
    def logits(self, batches):
        model = model_with(self.whole, self.mesh)
        device = self.mesh.device.torch_device
        results = []
        for batch in batches:
            tokens_BS, attended_BS, token_types_BS = (tensor.to(device) for tensor in batch)
            out = model(tokens_BS, attended_BS.sum(1), token_types_BS=token_types_BS)
            tokens_MV, pair_B2 = out if self.whole.config.next_sentence_head else (out, None)
            tokens_BSV = tokens_MV.float().cpu().view(*batch.tokens_BS.shape, -1)[..., : self.whole.config.vocab_size]
            results.append(Logits(tokens_BSV, None if pair_B2 is None else pair_B2.float().cpu()))
        return results


@dataclass
class HuggingfaceReader:
    """transformers' model and AutoTokenizer, from a folder.

    head: tensors of a new masked-language-model head, for an encoder that was saved without one.
    """

    folder: Path
    head: dict[str, torch.Tensor] | None = None
    has_token_types = True

    @property
    def name(self) -> str:
        import transformers

        return f"transformers {transformers.__version__}"

    def encode(self, texts):
        if not transformers_has_tokenizer(self.folder):
            return None
        return read_with_transformers(self.folder)(texts)["input_ids"]

    @torch.no_grad()
    def logits(self, batches):
        theirs, _ = read_weights(self.folder)
        pair_head = [theirs.get(name) for name in NAMING.next_sentence.values()]
        model = self._model(theirs | (self.head or {}))
        del theirs
        results = []
        for batch in batches:
            x_BSH = model.roberta(
                batch.tokens_BS, attention_mask=batch.attended_BS.long(), token_type_ids=batch.token_types_BS
            ).last_hidden_state
            pair_B2 = None
            if all(tensor is not None for tensor in pair_head):
                pooler, pooler_bias, classifier, classifier_bias = (tensor.float() for tensor in pair_head)
                pair_B2 = torch.tanh(x_BSH[:, 0] @ pooler.T + pooler_bias) @ classifier.T + classifier_bias
            results.append(Logits(model.lm_head(x_BSH), pair_B2))
        return results

    def _model(self, theirs: dict[str, torch.Tensor]):
        """From the folder itself if transformers finds all there; else from `theirs`, the same under today's names."""
        import transformers

        config, class_name = transformers_config(self.folder)
        model_class = getattr(transformers, class_name)
        for folder, tensors in ((self.folder, {}), (None, {"state_dict": theirs})):
            try:
                model, info = model_class.from_pretrained(
                    folder, **tensors, config=config, weights_only=True, dtype=torch.float32, output_loading_info=True
                )
            except Exception as error:  # of many kinds, from inside transformers
                problem = " ".join(str(error).split())[:200]
                continue
            problem = f"it misses {sorted(info['missing_keys'])[:1]}"
            if not info["missing_keys"] and not any(weight.is_meta for weight in model.parameters()):  # as 4.57 leaves some
                return model.eval()
        raise ConversionError(f"{self.folder}: {self.name} does not load it ({problem})")
