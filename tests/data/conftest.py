"""A small tokenizer and corpora that are quick to make, without any download."""

import random
from pathlib import Path

import numpy as np
import pytest

from robustbert.data.corpus import IndexedCorpus
from robustbert.data.preparation.corpus_writer import CorpusWriter
from robustbert.data.text.sentences import split_sentences
from robustbert.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

_WORDS = "the a model reads words and guesses those that are hidden from it by the mask every day again in turn".split()


def make_text(num_documents: int, seed: int = 0, sentences_per_document: int = 12) -> str:
    """English-looking plain text: documents parted by two blank lines, paragraphs of three sentences."""
    rng = random.Random(seed)
    documents = []
    for number in range(num_documents):
        sentences = []
        for _ in range(rng.randint(1, 2 * sentences_per_document)):
            words = rng.choices(_WORDS, k=rng.randint(2, 25))
            sentences.append(" ".join([words[0].capitalize(), *words[1:], str(number)]) + ".")
        paragraphs = ["\n".join(sentences[i : i + 3]) for i in range(0, len(sentences), 3)]
        documents.append("\n\n".join(paragraphs))
    return "\n\n\n".join(documents) + "\n"


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(iter(split_sentences(make_text(300))), vocab_size=340)


@pytest.fixture(scope="session")
def tokenizer_dir(tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizers") / "small"
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="session")
def roberta_tokenizer(shared_data) -> Tokenizer:
    return load_tokenizer(shared_data / "bpe")


@pytest.fixture
def write_corpus(tmp_path, tokenizer):
    """write_corpus(documents, name) writes documents (lists of sentences, lists of ids) and opens them."""

    def write(documents: list[list[list[int]]], name: str = "corpus") -> IndexedCorpus:
        with CorpusWriter(tmp_path / name, tokenizer, tmp_path / "tokenizer") as writer:
            for document in documents:
                writer.begin_document()
                for sentence in document:
                    writer.add_sentences(np.array(sentence), np.array([len(sentence)]))
            writer.finish({"text": "made by a test"})
        return IndexedCorpus(tmp_path / name)

    return write


@pytest.fixture
def random_corpus(write_corpus):
    """random_corpus(num_documents, seed) has sentences of 1 to 60 tokens, some far longer."""

    def make(num_documents: int = 60, seed: int = 0, name: str = "random"):
        rng = np.random.default_rng(seed)
        lengths = [
            [int(rng.integers(1, 60)) if rng.random() > 0.02 else 300 for _ in range(rng.integers(1, 30))]
            for _ in range(num_documents)
        ]
        return write_corpus([[rng.integers(4, 330, n).tolist() for n in document] for document in lengths], name)

    return make
