"""Sentences lose nothing but white space, and encode to the tokens of their paragraph."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from robustbert.data.text.sentences import split_sentences


def test_sentences_of_a_paragraph_keep_the_space_between_them():
    text = "He came\nhome. “Was it late?” she asked. It was.\n\nNext one!"
    assert split_sentences(text) == ["He came home.", " “Was it late?” she asked.", " It was.", "Next one!"]


def test_abbreviations_and_initials_do_not_end_a_sentence():
    text = "Mr. J. R. Brown met Dr. Smith in St. Ives, e.g. at No. 5. The U.S. Army paid 3.5 dollars (approx. Two)."
    assert split_sentences(text) == [
        "Mr. J. R. Brown met Dr. Smith in St. Ives, e.g. at No. 5.",
        " The U.S. Army paid 3.5 dollars (approx. Two).",
    ]


def test_a_lower_case_word_continues_the_sentence():
    assert split_sentences('"Stop!" he cried. Then... nothing') == ['"Stop!" he cried.', " Then... nothing"]


def test_white_space_alone_is_no_sentence():
    assert split_sentences(" \n\n \t\n ") == []


@given(st.text(alphabet=st.sampled_from("aB .!?\n\t\"'”(é.5"), max_size=80))
@settings(max_examples=300, deadline=None)
def test_the_tokens_of_the_sentences_are_those_of_their_paragraphs(tokenizer, text):
    paragraphs = [re.sub(r"\s+", " ", p).strip(" ") for p in re.split(r"\n\s*\n\s*", text)]
    sentences = split_sentences(text)
    assert "".join(sentences) == "".join(paragraphs)
    expected = [i for paragraph in paragraphs for i in tokenizer.encode(paragraph)]
    assert [i for sentence in sentences for i in tokenizer.encode(sentence)] == expected
