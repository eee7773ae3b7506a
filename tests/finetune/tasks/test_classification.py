"""Tasks of one sequence an example: how texts become tokens."""

import json
import shutil

import pytest

from robustbert.finetune.models import read_tokenizer
from robustbert.finetune.tasks import build_task
from robustbert.finetune.tasks.classification import TextExample
from robustbert.finetune.tasks.pairs import ids_and_offsets, pair_frame


@pytest.mark.parametrize("texts", [("a <mask> b </s> c",), ("a <mask> b", "</s> c <pad>")], ids=["one", "pair"])
def test_the_name_of_a_special_token_inside_a_text_is_text(reader_tokenizer, texts):
    (item,) = build_task("mrpc").items([TextExample("0", texts)], reader_tokenizer, 64, training=False)
    (encoded,) = item.sequences
    specials = [reader_tokenizer.convert_ids_to_tokens(i) for i in encoded.ids.tolist() if i in reader_tokenizer.all_special_ids]
    assert specials == (["<s>", "</s>"] if len(texts) == 1 else ["<s>", "</s>", "</s>", "</s>"])
    for text in texts:
        assert text in reader_tokenizer.decode(encoded.ids)


def test_a_roberta_pretrained_on_pairs_is_given_segments(reader_model, reader_tokenizer, tmp_path):
    """As its pretraining has them: the first </s> belongs to the first segment, the second to the second one."""
    shutil.copytree(reader_model, tmp_path / "pairs")
    config = json.loads((reader_model / "config.json").read_text())
    (tmp_path / "pairs" / "config.json").write_text(json.dumps(config | {"type_vocab_size": 2}))
    tokenizer, plain = read_tokenizer(tmp_path / "pairs"), read_tokenizer(reader_model)
    texts = ("Rollo was their leader", "Who led them ?")
    (typed,), (untyped,) = (
        build_task("mrpc").items([TextExample("0", texts)], each, 64, training=False)[0].sequences for each in (tokenizer, plain)
    )
    assert typed.ids.tolist() == untyped.ids.tolist() and untyped.types is None
    first_length, second_length = (len(reader_tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
    assert typed.types.tolist() == [0] * (first_length + 2) + [1] * (second_length + 2)
    frame = pair_frame(tokenizer)
    built = frame.encode(*(reader_tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts))
    assert built.ids.tolist() == typed.ids.tolist() and built.types.tolist() == typed.types.tolist()
    assert frame.encode_one([7]).types.tolist() == [0, 0, 0] and pair_frame(plain).between_types is None
    for mine, theirs in zip(ids_and_offsets(tokenizer, texts[0]), ids_and_offsets(plain, texts[0]), strict=True):
        assert mine.tolist() == theirs.tolist()
