"""Tasks of one sequence an example: how texts become tokens."""

import pytest

from robustbert.finetune.tasks import build_task
from robustbert.finetune.tasks.classification import TextExample


@pytest.mark.parametrize("texts", [("a <mask> b </s> c",), ("a <mask> b", "</s> c <pad>")], ids=["one", "pair"])
def test_the_name_of_a_special_token_inside_a_text_is_text(reader_tokenizer, texts):
    (item,) = build_task("mrpc").items([TextExample("0", texts)], reader_tokenizer, 64, training=False)
    (encoded,) = item.sequences
    specials = [reader_tokenizer.convert_ids_to_tokens(i) for i in encoded.ids.tolist() if i in reader_tokenizer.all_special_ids]
    assert specials == (["<s>", "</s>"] if len(texts) == 1 else ["<s>", "</s>", "</s>", "</s>"])
    for text in texts:
        assert text in reader_tokenizer.decode(encoded.ids)
