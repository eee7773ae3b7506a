"""SQuAD's JSON: what is read, and that every fault is named by file, place and question."""

import pytest

from robustbert.data.errors import DataError
from robustbert.finetune.tasks import build_task
from robustbert.finetune.tasks.squad.read import Answer, read_squad

_CONTEXT = "Rollo led the Norse. Caf\u00e9s were not known to him."
_QUESTIONS = [("q1", "Who led them?", "Rollo"), ("q2", " When? ", None)]


def entry(content, number=0):
    return content["data"][0]["paragraphs"][0]["qas"][number]


def test_questions_are_read_in_order_with_their_answers(write_squad):
    first, second = read_squad(write_squad([(_CONTEXT, _QUESTIONS)]), "2.0")
    assert (first.id, first.text, first.answers) == ("q1", "Who led them?", (Answer("Rollo", 0),))
    assert (second.text, second.answers, second.is_answerable) == ("When?", (), False)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: entry(c)["answers"][0].update(answer_start=100), "answer is at characters 100 to 105 of a paragraph of 49"),
        (lambda c: entry(c)["answers"][0].update(answer_start=-1), "answer is at characters -1 to 4"),
        (lambda c: entry(c)["answers"][0].update(answer_start=1), "says 'Rollo', the paragraph says 'ollo ' at character 1"),
        (lambda c: entry(c)["answers"][0].update(answer_start="0"), "`answer_start` is '0', it should be a whole number"),
        (lambda c: entry(c)["answers"][0].update(text=""), "the answer is empty"),
        (lambda c: entry(c).pop("answers"), "has no `answers`"),
        (lambda c: entry(c).update(question=" "), "the question is empty"),
        (lambda c: entry(c).update(is_impossible=True), "is_impossible, yet with 1 answers"),
        (lambda c: entry(c).update(answers=[]), "has no answer, but is_impossible does not say so"),
    ],
)
def test_fault_of_a_question_is_named_by_file_place_and_id(write_squad, change, message):
    path = write_squad([(_CONTEXT, _QUESTIONS)], change=change)
    with pytest.raises(DataError) as error:
        read_squad(path, "2.0")
    assert f"{path}: data[0].paragraphs[0].qas[0] (question q1)" in str(error.value) and message in str(error.value)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: entry(c).pop("id"), r"qas\[0\]: has no `id`"),
        (lambda c: entry(c, 1).update(id="q1"), r"qas\[1\] \(question q1\): the id q1 stands in the file twice"),
        (lambda c: c["data"][0]["paragraphs"][0].pop("context"), r"data\[0\].paragraphs\[0\]: has no `context`"),
        (lambda c: c["data"][0].update(paragraphs={}), r"data\[0\]: `paragraphs` is '{}', it should be a list"),
        (lambda c: c.update(data=[]), "holds no question"),
        (lambda c: c.pop("data"), "has no `data`"),
    ],
)
def test_fault_of_the_file_is_named(write_squad, change, message):
    with pytest.raises(DataError, match=message):
        read_squad(write_squad([(_CONTEXT, _QUESTIONS)], change=change), "2.0")


def test_cut_off_and_undecodable_files_are_named(write_squad):
    path = write_squad([(_CONTEXT, _QUESTIONS)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="train-v2.0.json: not JSON, or cut off"):
        read_squad(path, "2.0")
    path.write_bytes(whole.replace(b"Rollo led", b"R\xff llo led"))
    with pytest.raises(DataError, match="not UTF-8"):
        read_squad(path, "2.0")


def test_a_2_0_file_is_no_1_1_file(write_squad):
    with pytest.raises(DataError, match=r"\(question q2\): has no answer, which SQuAD 1.1 does not know; .* task squad2.0"):
        read_squad(write_squad([(_CONTEXT, _QUESTIONS)]), "1.1")


def test_a_test_set_may_be_without_answers(write_squad):
    path = write_squad([(_CONTEXT, _QUESTIONS)], change=lambda c: [entry(c, i).pop("answers") for i in (0, 1)])
    assert [question.answers for question in read_squad(path, "2.0", need_answers=False)] == [None, None]


def test_the_one_file_whose_name_begins_so_is_taken(write_squad, tmp_path):
    task = build_task("squad2.0")
    with pytest.raises(FileNotFoundError):
        task.read(tmp_path, "train")
    write_squad([(_CONTEXT, _QUESTIONS)], "train-v2.0-subset.json")
    assert len(task.read(tmp_path, "train")) == 2
    write_squad([(_CONTEXT, _QUESTIONS[:1])], "train-v2.0-other.json")
    with pytest.raises(ValueError, match="train-v2.0-other.json and train-v2.0-subset.json; which one"):
        task.read(tmp_path, "train")
    write_squad([(_CONTEXT, _QUESTIONS[:1])], "train-v2.0.json")
    assert len(task.read(tmp_path, "train")) == 1


def test_real_files_are_read(shared_data):
    assert len(read_squad(shared_data / "squad" / "train-v1.1-derived.json", "1.1")) == 4371
    questions = read_squad(shared_data / "squad" / "dev-v2.0-subset.json", "2.0")
    assert (len(questions), sum(question.is_answerable for question in questions)) == (1407, 705)


def test_misaligned_answers_are_moved_or_left_out_with_a_count(write_squad, capsys):
    others = [(f"o{i}", "Who?", "Norse") for i in range(6)]
    questions = [("near", "Who?", "Rollo"), ("gone", "What?", "Norse"), ("far", "What?", "led"), *others]

    def misalign(content):
        entry(content, 0)["answers"][0]["answer_start"] = 2
        entry(content, 1)["answers"][0].update(text="Danes")
        entry(content, 2)["answers"][0].update(text="e", answer_start=45)  # stands in many places, none beside it

    path = write_squad([(_CONTEXT, questions)], change=misalign)
    train = {question.id: question.answers for question in read_squad(path, "2.0", training=True)}
    assert train.pop("near") == (Answer("Rollo", 0),) and list(train) == [f"o{i}" for i in range(6)]
    message = capsys.readouterr().err
    assert "3 of 9 answers are misaligned: 1 moved" in message and "2 questions left out" in message and message.count("\n") == 1
    assert "the first: " in message and "(question near), answers[0]: says 'Rollo', the paragraph says 'llo l' at character 2" in message
    # A development set keeps the text: it is scored by it
    dev = {question.id: question.answers for question in read_squad(path, "2.0")}
    assert len(dev) == 9 and dev["gone"] == (Answer("Danes", None),)


def test_a_question_keeps_its_aligned_answers_in_training(write_squad, capsys):
    def add(content):
        entry(content)["answers"] = [{"text": "Danes", "answer_start": 0}, {"text": "Rollo", "answer_start": 0}]

    path = write_squad([(_CONTEXT, [("q1", "Who?", "Rollo"), ("q2", "What?", "Norse")])], change=add)
    assert read_squad(path, "2.0", training=True)[0].answers == (Answer("Rollo", 0),)
    assert "1 of 3 answers are misaligned: 0 moved" in capsys.readouterr().err


def test_a_file_of_mostly_misaligned_answers_is_refused(write_squad):
    # As places counted in bytes of UTF-8 are: all behind the first accent are too high
    questions = [(f"q{i}", "Who?", word) for i, word in enumerate(("Rollo", "known", "not", "him"))]

    def count_bytes(content):
        for i in range(len(questions)):
            answer = entry(content, i)["answers"][0]
            answer["answer_start"] = len(_CONTEXT[: answer["answer_start"]].encode())

    with pytest.raises(DataError, match=r"question q1\).*says 'known'.*so are 3 of 4 answers of the file"):
        read_squad(write_squad([(_CONTEXT, questions)], change=count_bytes), "2.0")


def test_a_moved_answer_is_the_target_of_its_window(write_squad, reader_tokenizer):
    path = write_squad([(_CONTEXT, [*_QUESTIONS, ("q3", "Whom?", "Norse"), ("q4", "Whom?", "Norse")])],
                       change=lambda c: entry(c, 2)["answers"][0].update(answer_start=3))
    task = build_task("squad2.0")
    moved, right = task.items(read_squad(path, "2.0", training=True)[2:], reader_tokenizer, 384, True)
    assert moved.target == right.target and moved.target[0] != 0


def test_hugging_faces_flat_form_and_utf16_are_named(write_squad, tmp_path):
    flat = [{"id": "q", "context": _CONTEXT, "question": "Who?", "answers": {"text": ["Rollo"], "answer_start": [0]}}]
    path = write_squad([(_CONTEXT, _QUESTIONS)], change=lambda c: c.update(data=flat))
    with pytest.raises(DataError, match=r"data\[0\] is a question with its context, as Hugging Face's datasets have it"):
        read_squad(path, "2.0")
    text = path.read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-16")
    with pytest.raises(DataError, match="is UTF-16; convert it: iconv"):
        read_squad(path, "2.0")
