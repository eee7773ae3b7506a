"""What the gate of a conversion asks of fairseq's format: answered by fairseq itself, or by a plain reader of its files.

B batch, S sequence, H hidden, V vocabulary.
"""

import contextlib
import tempfile
from argparse import Namespace
from pathlib import Path

import torch

from robustbert.convert.errors import ConversionError
from robustbert.convert.fairseq import ANCHORS, NEXT_SENTENCE
from robustbert.convert.fairseq_file import read_model_file
from robustbert.convert.fairseq_import import fairseq_version, mended_for_fairseq, why_fairseq_is_not_importable
from robustbert.convert.fairseq_plain import PlainFairseqModel, PlainFairseqTokenizer
from robustbert.convert.other_names import without_wrappers
from robustbert.convert.readers import Logits
from robustbert.data.tokenizer.byte_bpe import ByteBPE


class FairseqReader:
    """fairseq's own RobertaModel and tokenizer where it is importable, else the plain reader of its files.

    tokenizer: used where there is no encoder.json beside model.pt. must_load: fairseq itself, where it is importable, has to
    load the file (it does not understand every file of its earlier versions). head: tensors of a new masked-language-model
    head, for a file without one, which fairseq does not load.
    """

    has_token_types = False

    def __init__(self, model_file: Path, dictionary: Path, tokenizer: ByteBPE, num_heads: int, must_load: bool,
                 head: dict[str, torch.Tensor] | None = None):  # fmt: skip
        self._num_heads, self._head = num_heads, head or {}
        self._model_file, self._dictionary, self._tokenizer = model_file.absolute(), dictionary.absolute(), tokenizer
        self._must_load = must_load
        self._obstacle = "the head is new" if head else why_fairseq_is_not_importable()
        self.name = f"fairseq {fairseq_version()} itself" if self._obstacle is None else self._plain_name()

    def encode(self, texts):
        with self._bpe_folder() as folder:
            if self._obstacle is not None:
                tokenizer = PlainFairseqTokenizer(Path(folder), self._dictionary)
                return [tokenizer.encode(text) for text in texts]
            with mended_for_fairseq():
                from fairseq.data import Dictionary
                from fairseq.data.encoders.gpt2_bpe import GPT2BPE

                files = {"gpt2_encoder_json": f"{folder}/encoder.json", "gpt2_vocab_bpe": f"{folder}/vocab.bpe"}
                bpe, dictionary = GPT2BPE(Namespace(**files)), Dictionary.load(str(self._dictionary))
                framed = (f"<s> {bpe.encode(text)} </s>" for text in texts)
                return [dictionary.encode_line(line, append_eos=False, add_if_not_exist=False).tolist() for line in framed]

    @torch.no_grad()
    def logits(self, batches):
        if self._obstacle is None:
            try:
                with mended_for_fairseq(), torch.serialization.safe_globals([Namespace]):
                    return self._own_logits(batches)
            except Exception as error:  # of many kinds, from inside fairseq
                self._obstacle = f"fairseq itself does not load it: {' '.join(str(error).split())[:100]}"
                if self._must_load:
                    raise ConversionError(f"{self._model_file.name}: {self._obstacle}") from error
                self.name = self._plain_name()
        return self._plain_logits(batches)

    def _own_logits(self, batches):
        from fairseq.models.roberta import RobertaModel

        with self._bpe_folder() as folder:
            model = RobertaModel.from_pretrained(
                str(self._model_file.parent),
                checkpoint_file=self._model_file.name,
                data_name_or_path=str(self._dictionary.parent),
                gpt2_encoder_json=f"{folder}/encoder.json",
                gpt2_vocab_bpe=f"{folder}/vocab.bpe",
            ).model
        model.float().eval()
        results = []
        for batch in batches:
            x_BSH, _ = model(batch.tokens_BS, features_only=True)
            heads = model.classification_heads
            pair_B2 = heads[NEXT_SENTENCE](x_BSH) if NEXT_SENTENCE in heads else None
            results.append(Logits(model.encoder.lm_head(x_BSH), pair_B2))
        return results

    def _plain_logits(self, batches):
        theirs, _ = without_wrappers(read_model_file(self._model_file)["model"], ANCHORS, self._model_file)
        model = PlainFairseqModel(theirs | self._head, self._num_heads)
        features = [model.features(batch.tokens_BS) for batch in batches]
        return [Logits(model.predict_tokens(x_BSH), model.classify(x_BSH, NEXT_SENTENCE)) for x_BSH in features]

    def _plain_name(self) -> str:
        return f"a plain reader of fairseq's files ({self._obstacle})"

    def _bpe_folder(self):
        """A context that gives a folder with encoder.json and vocab.bpe."""
        if (self._model_file.parent / "encoder.json").exists():
            return contextlib.nullcontext(str(self._model_file.parent))
        return _written_for_fairseq(self._tokenizer)


def _written_for_fairseq(tokenizer: ByteBPE) -> tempfile.TemporaryDirectory:
    folder = tempfile.TemporaryDirectory()
    tokenizer.save_for_fairseq(Path(folder.name))
    return folder
