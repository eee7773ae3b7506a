"""Run in a process of its own: logits of a converted model.pt by fairseq itself, against transformers; prints JSON.

python -m tests.convert.fairseq_itself FAIRSEQ_FOLDER HUGGINGFACE_FOLDER
"""

import json
import sys
from argparse import Namespace
from pathlib import Path

import torch
from transformers import AutoTokenizer, RobertaForMaskedLM

from robustbert.convert.fairseq import NEXT_SENTENCE
from robustbert.convert.fairseq_file import read_model_file, settings_of
from robustbert.convert.fairseq_import import mended_for_fairseq
from robustbert.convert.fairseq_plain import PlainFairseqModel, PlainFairseqTokenizer

TEXTS = ["Hello world!", "The dog does  not\nmind."]  # within the 40 positions of the small model, of 300 pieces


@torch.no_grad()
def main(fairseq_folder: Path, huggingface_folder: Path) -> dict:
    """Largest differences of the logits on real text, and whether the three tokenizers agree."""
    with mended_for_fairseq(), torch.serialization.safe_globals([Namespace]):
        from fairseq.models.roberta import RobertaModel

        files = {"gpt2_encoder_json": "encoder.json", "gpt2_vocab_bpe": "vocab.bpe"}
        hub = RobertaModel.from_pretrained(
            str(fairseq_folder), **{key: str(fairseq_folder / name) for key, name in files.items()}
        ).eval()
    theirs = RobertaForMaskedLM.from_pretrained(huggingface_folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(huggingface_folder)
    plain_tokenizer = PlainFairseqTokenizer(fairseq_folder, fairseq_folder / "dict.txt")
    plain = PlainFairseqModel(
        read_model_file(fairseq_folder / "model.pt")["model"], theirs.config.num_attention_heads
    )
    result = {"huggingface": 0.0, "plain": 0.0, "next_sentence": 0.0, "largest_logit": 0.0, "same_ids": True}
    for text in TEXTS:
        tokens_BS = hub.encode(text)[None]
        ids = tokens_BS[0].tolist()
        result["same_ids"] &= ids == tokenizer(text)["input_ids"] == plain_tokenizer.encode(text)
        logits_BSV = hub.model(tokens_BS)[0]
        features_BSH = plain.features(tokens_BS)
        pair_B2 = hub.predict(NEXT_SENTENCE, tokens_BS, return_logits=True)
        others = {
            "huggingface": (logits_BSV, theirs(tokens_BS).logits),
            "plain": (logits_BSV, plain.predict_tokens(features_BSH)),
            "next_sentence": (pair_B2, plain.classify(features_BSH, NEXT_SENTENCE)),
        }
        for name, (expected, actual) in others.items():
            result[name] = max(result[name], (expected - actual).abs().max().item())
        result["largest_logit"] = max(result["largest_logit"], logits_BSV.abs().max().item())
    result["same_settings_as_omegaconf"] = settings_through_omegaconf(fairseq_folder / "model.pt")
    return result


def settings_through_omegaconf(model_file: Path) -> bool:
    """Whether a configuration that was saved as omegaconf's object, as some versions do, is read like a plain one."""
    from omegaconf import OmegaConf

    content = read_model_file(model_file)
    held = model_file.with_name("omegaconf.pt")
    torch.save(content | {"cfg": OmegaConf.create(content["cfg"])}, held)
    return settings_of(read_model_file(held), held) == settings_of(content, model_file)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
