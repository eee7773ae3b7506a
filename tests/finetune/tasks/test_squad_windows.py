"""SQuAD's windows and answers: text is cut from the paragraph exactly, nothing is left out, the best spans are the best."""

import itertools

import numpy as np
import pytest

from robustbert.finetune.settings import FinetuneError
from robustbert.finetune.tasks.pairs import pair_frame
from robustbert.finetune.tasks.squad.answers import NUM_BEST, Span, best_spans, best_texts
from robustbert.finetune.tasks.squad.read import Answer, Question, read_squad
from robustbert.finetune.tasks.squad.windows import NO_SPAN, Window, WindowOptions, windows_of

_CONTEXT = "Rollo led the Norse </s> raiders. Caf\u00e9s \U0001f600 of Normandy, not <mask> known in 1066\u2014to him."


def question(context, answer=None, text="Who led them?"):
    answers = () if answer is None else (Answer(answer, context.index(answer)),)
    return Question("q", text, context, answers)


def one(question, tokenizer, options=WindowOptions()):
    [(number, encoded, window)] = windows_of([question], tokenizer, options)
    assert number == 0
    return encoded, window


def test_a_window_is_robertas_pair(reader_tokenizer):
    encoded, window = one(question("Rollo led them."), reader_tokenizer)
    assert encoded.ids.tolist() == reader_tokenizer("Who led them?", "Rollo led them.")["input_ids"]
    assert encoded.types is None and encoded.ids[window.first - 1] == reader_tokenizer.sep_token_id


def test_a_window_of_bert_has_segments(tmp_path):
    from transformers import AutoTokenizer

    from robustbert.data.tokenizer import load_tokenizer

    words = "[PAD] [UNK] [CLS] [SEP] [MASK] who led them rollo ? .".split()
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    load_tokenizer(tmp_path).save(tmp_path / "bert")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "bert")
    encoded, _ = one(question("Rollo led them."), tokenizer)
    theirs = tokenizer("Who led them?", "Rollo led them.")
    assert (encoded.ids.tolist(), encoded.types.tolist()) == (theirs["input_ids"], theirs["token_type_ids"])


@pytest.mark.parametrize(
    "answer", ["Rollo", "</s>", "Caf\u00e9s", "\U0001f600", "1066", "<mask>", "him", "the Norse </s> raiders"]
)
def test_the_answers_tokens_give_its_text(reader_tokenizer, answer):
    encoded, window = one(question(_CONTEXT, answer), reader_tokenizer)
    first, last = (position - window.first for position in window.answer)
    text = _CONTEXT[window.starts[first] : window.ends[last]].strip()
    assert answer in text and len(text) <= len(answer) + 3  # a token may hold a neighbour's letters
    assert not np.isin(encoded.ids[window.first : -1], reader_tokenizer.all_special_ids).any()


def test_every_token_has_its_best_context_in_one_window_and_the_answer_is_in_some(reader_tokenizer):
    context = " ".join(f"word{i}" for i in range(300))
    options = WindowOptions(max_length=100, max_query_length=10, doc_stride=30)
    windows = [window for _, _, window in windows_of([question(context, "word250")], reader_tokenizer, options)]
    assert len(windows) > 10
    best = [start for window in windows for start in window.starts[window.is_best]]
    assert sorted(best) == sorted({start for window in windows for start in window.starts})
    with_answer = [window for window in windows if window.answer[0] != NO_SPAN]
    assert with_answer and all("word250" in context[w.starts[0] : w.ends[-1]] for w in with_answer)
    assert max(len(encoded) for _, encoded, _ in windows_of([question(context)], reader_tokenizer, options)) == 100


def test_a_small_window_leaves_nothing_out(reader_tokenizer):
    context = "Rollo was their leader in Normandy " * 20
    windows = [w for _, _, w in windows_of([question(context)], reader_tokenizer, WindowOptions(max_length=40))]
    covered = set(itertools.chain.from_iterable(range(w.starts[0], w.ends[-1]) for w in windows))
    assert len(context.strip()) - 1 <= len(covered)
    assert (np.diff([w.starts[0] for w in windows]) > 0).all()


def test_too_small_a_window_is_refused(reader_tokenizer):
    with pytest.raises(FinetuneError, match=r"--max-length 20 leaves -?\d+ tokens .* beside question q .*use at least"):
        one(question("x " * 50, text="who " * 30), reader_tokenizer, WindowOptions(max_length=20))


def test_a_long_question_is_cut_and_an_empty_paragraph_has_a_window(reader_tokenizer):
    encoded, window = one(question("", text="who " * 200), reader_tokenizer)
    assert len(encoded) == 64 + pair_frame(reader_tokenizer).num_specials and len(window.starts) == 0


def made_window(num_tokens, first=3, is_best=None):
    starts = np.arange(num_tokens) * 2
    return Window(first, starts, starts + 1, np.ones(num_tokens, bool) if is_best is None else is_best, (0, 0))


def test_best_spans_are_those_of_trying_all():
    rng = np.random.default_rng(0)
    window = made_window(40, is_best=rng.random(40) > 0.3)
    starts, ends = rng.normal(size=(2, 44)).astype(np.float32)
    tried = [
        (float(starts[3 + i]) + float(ends[3 + j]), 2 * i, 2 * j + 1)
        for i in range(40)
        for j in range(i, min(40, i + 5))
        if window.is_best[i]
    ]
    spans = best_spans(window, starts, ends, max_length=5)
    assert [(span.score, span.start, span.end) for span in spans] == sorted(tried, reverse=True)[:NUM_BEST]


def test_neither_question_nor_padding_can_be_predicted():
    starts = np.array([99, 99, 99, 1, 0, 99], np.float32)
    [best, *_] = best_spans(made_window(2), starts, starts)
    assert (best.start, best.end, best.score) == (0, 1, 2.0)
    assert best_spans(made_window(0), starts[:4], starts[:4]) == []


def test_texts_are_ranked_once_each_and_never_empty():
    spans = [Span(0, 3, 1.0), Span(4, 8, 3.0), Span(3, 4, 9.0), Span(8, 12, 2.0)]
    texts = best_texts("one two  two   ", spans)  # characters 3:4 are a space
    assert [text for text, _ in texts] == ["two", "one"]
    assert sum(share for _, share in texts) == pytest.approx(1) and texts[0][1] == pytest.approx(1 / (1 + np.exp(-2)))
    assert best_texts("  ", [Span(0, 1, 1.0)]) == ()


def test_real_answers_are_found_again(shared_data, roberta_tokenizer):
    questions = read_squad(shared_data / "squad" / "dev-v2.0-subset.json", "2.0")
    exact = 0
    for number, _, window in windows_of(questions, roberta_tokenizer, WindowOptions()):
        if window.answer[0] != NO_SPAN:
            first, last = (position - window.first for position in window.answer)
            text = questions[number].context[window.starts[first] : window.ends[last]].strip()
            assert questions[number].answers[0].text in text
            exact += text == questions[number].answers[0].text
    assert exact >= 700  # of 705; of the others a token holds a following mark, such as `).`
