"""A small random model for reading tasks, with a tokenizer made of prose, and pieces of data in the official layouts."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from robustbert.data.tokenizer import load_tokenizer, train_tokenizer
from tests.finetune.tasks.real_data import build_reader_model

_PROSE = (
    "The Normans gave their name to Normandy , a region in France . They were descended from Norse raiders and pirates . "
    "Rollo was their leader ; he agreed to swear fealty to King Charles III . Who led them ? When was it ? Where did they live ?"
)


@pytest.fixture(scope="session")
def reader_model(tmp_path_factory) -> Path:
    """A folder of RobertaForMaskedLM, 512 positions, with a byte-level BPE of a few hundred tokens."""
    tokenizer = train_tokenizer(iter([_PROSE] * 3), 300)
    return build_reader_model(tmp_path_factory.mktemp("reader") / "model", tokenizer, hidden_size=32)


@pytest.fixture(scope="session")
def reader_tokenizer(reader_model):
    return AutoTokenizer.from_pretrained(reader_model)


@pytest.fixture(scope="session")
def real_reader_model(tmp_path_factory, shared_data) -> Path:
    """As reader_model, wider, with a tokenizer made of SQuAD's paragraphs."""
    articles = json.loads((shared_data / "squad" / "train-v2.0-subset.json").read_text(encoding="utf-8"))["data"]
    texts = [paragraph["context"] for article in articles for paragraph in article["paragraphs"]]
    return build_reader_model(tmp_path_factory.mktemp("real_reader") / "model", train_tokenizer(iter(texts), 3000))


@pytest.fixture(scope="session")
def roberta_tokenizer(tmp_path_factory, shared_data):
    """RoBERTa's own, as transformers reads it."""
    folder = tmp_path_factory.mktemp("roberta") / "tokenizer"
    load_tokenizer(shared_data / "bpe").save(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def write_squad(tmp_path):
    """write_squad(context, questions, ...) writes SQuAD's JSON: (id, question, answer text or None) each; returns its path."""

    def write(paragraphs: list[tuple[str, list[tuple]]], name: str = "train-v2.0.json", change=lambda content: None) -> Path:
        written = []
        for context, questions in paragraphs:
            entries = []
            for identity, text, answer in questions:
                answers = [] if answer is None else [{"text": answer, "answer_start": context.index(answer)}]
                entry = {"id": identity, "question": text, "answers": answers}
                if "2.0" in name:
                    entry["is_impossible"] = answer is None
                entries.append(entry)
            written.append({"context": context, "qas": entries})
        content = {"version": name, "data": [{"title": "made", "paragraphs": written}]}
        change(content)
        path = tmp_path / name
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write
