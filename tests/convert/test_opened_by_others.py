"""A converted folder in the hands of others: another user of the group opens it, and its tokenizer knows the model's length."""

import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, RobertaForMaskedLM

from robustbert.convert.convert import convert
from robustbert.convert.huggingface import write_huggingface
from robustbert.data.tokenizer import load_tokenizer, train_tokenizer
from tests.convert.models import PLAIN, TEXT, random_whole

ANOTHER_USER, GROUP = 64_321, 64_322  # numbers that no account has
LONG_TEXT = " ".join(["dog"] * 10_000)
TIMEOUT_S = 60


def convert_under(umask: int, folder: Path, to: str) -> Path:
    write_huggingface(folder / "source", random_whole(PLAIN), train_tokenizer(iter(TEXT), 300))
    (folder / "text.txt").write_text(TEXT[0])
    former = os.umask(umask)
    try:
        return convert(folder / "source", to, folder / "converted", text=folder / "text.txt").output
    finally:
        os.umask(former)


def opened(folder: Path) -> dict:
    """What transformers reads from the folder: the length of a long text's ids, and the number of weights."""
    ids = AutoTokenizer.from_pretrained(folder)(LONG_TEXT, truncation=True)["input_ids"]
    model = RobertaForMaskedLM.from_pretrained(folder)
    return {"user": os.geteuid(), "ids": len(ids), "weights": sum(p.numel() for p in model.parameters())}


def as_another_user(action, *arguments) -> dict:
    """action's result in a forked process that is another user of the group GROUP; its error's text under "error"."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(TIMEOUT_S)
        try:
            torch.set_num_threads(1)  # OpenMP's threads do not survive the fork
            os.setgroups([])
            os.setgid(GROUP)
            os.setuid(ANOTHER_USER)
            answer = action(*arguments)
        except BaseException as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answer:
        content = answer.read()
    os.waitpid(child, 0)
    return json.loads(content)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("umask", [0o027, 0o022])
def test_another_user_of_the_group_opens_a_converted_model(umask):
    """safetensors 0.8.0 makes its files 0600 whatever the umask is; the others of a folder are 0640 or 0644."""
    with tempfile.TemporaryDirectory() as shared:  # not below pytest's own folder, which is root's alone
        os.chown(shared, 0, GROUP)
        os.chmod(shared, 0o2750)  # what is made inside has its group
        folder = convert_under(umask, Path(shared), "huggingface")
        here = opened(folder)  # and all modules are imported
        assert as_another_user(opened, folder) == here | {"user": ANOTHER_USER}


@pytest.mark.parametrize("to", ["huggingface", "fairseq", "robustbert"])
@pytest.mark.parametrize("umask", [0o002, 0o027, 0o077])
def test_every_file_of_a_conversion_has_the_mode_of_the_umask(tmp_path, umask, to):
    folder = convert_under(umask, tmp_path, to)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in folder.rglob("*") if path.is_file()}
    assert len(modes) > 3 and set(modes.values()) == {oct(0o666 & ~umask)}, modes
    folders = {oct(path.stat().st_mode & 0o777) for path in (folder, *folder.rglob("*")) if path.is_dir()}
    assert folders == {oct(0o777 & ~umask)}


def test_a_long_text_is_cut_to_the_models_positions_and_goes_through_it(tmp_path):
    folder = convert_under(0o022, tmp_path, "huggingface")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), RobertaForMaskedLM.from_pretrained(folder)
    assert tokenizer.model_max_length == PLAIN.max_sequence_length
    batch = tokenizer(LONG_TEXT, truncation=True, return_tensors="pt")
    assert batch["input_ids"].shape == (1, PLAIN.max_sequence_length)
    assert model(**batch).logits.shape[:2] == (1, PLAIN.max_sequence_length)
    assert len(tokenizer(TEXT[0] * 2, TEXT[0] * 2, truncation=True)["input_ids"]) == PLAIN.max_sequence_length


def test_the_mask_takes_the_space_before_it_in_transformers_too(tmp_path):
    """By tokenizer.json and tokenizer_config.json; of vocab.json and merges.txt alone transformers 5.24.0 makes another <mask>,
    which leaves a lone space before it (4.57.1 does not).
    """
    folder = convert_under(0o022, tmp_path, "huggingface")
    ours = load_tokenizer(folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    for text in ("The dog <mask> mind.", "<mask>", "The  <mask>, dog", "Hello<mask>"):
        assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(text, recognise_specials=True)
    assert theirs.convert_ids_to_tokens(theirs("dog <mask>", add_special_tokens=False)["input_ids"])[-2] != "Ġ"


def test_transformers_empty_tokenizer_is_not_taken_for_one(tmp_path):
    """A folder with GPT-2's encoder.json and vocab.bpe: transformers 5.24.0 makes a tokenizer of five special tokens of it."""
    write_huggingface(tmp_path / "source", random_whole(PLAIN), train_tokenizer(iter(TEXT), 300))
    tokenizer = load_tokenizer(tmp_path / "source")
    (tmp_path / "gpt2").mkdir()
    tokenizer.save_for_fairseq(tmp_path / "gpt2")
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tmp_path / "source" / name, tmp_path / "gpt2" / name)
    (tmp_path / "text.txt").write_text(TEXT[0])
    done = convert(tmp_path / "gpt2", "huggingface", tmp_path / "out", text=tmp_path / "text.txt")
    assert AutoTokenizer.from_pretrained(done.output)(TEXT[0])["input_ids"][1:-1] == tokenizer.encode(TEXT[0])
