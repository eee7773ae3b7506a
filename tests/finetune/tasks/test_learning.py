"""Every task learns real examples by heart through the runner, and says the same on 1 and on 2 processes."""

from dataclasses import replace

import pytest

from robustbert.finetune.finetune import Request, finetune
from robustbert.finetune.progress import Quiet
from robustbert.finetune.tasks import build_task
from robustbert.job import Job
from robustbert.testing.ranks import run_on_ranks
from tests.finetune.tasks.real_data import qnli_folder, race_folder, squad_folder, winograd_folder

_SETTINGS = dict(lr=1e-3, batch_size=4, micro_batch_size=4, dropout=0.0, attention_dropout=0.0, weight_decay=0.0)


def request(name, data, output, model, **settings) -> Request:
    return Request(data, output, replace(build_task(name).settings, **_SETTINGS | settings), model)


def learned(name, data, output, model, **settings) -> float:
    """The watched score of the best epoch."""
    return finetune(build_task(name), request(name, data, output, model, **settings), Job(), Quiet())["watched"]["value"]


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1.1", "2.0"])
def test_squad_is_learned(tmp_path, shared_data, real_reader_model, version):
    data = squad_folder(shared_data, version, tmp_path / "data")
    settings = dict(epochs=50 if version == "1.1" else 35, batch_size=2, micro_batch_size=2)
    assert learned(f"squad{version}", data, tmp_path / "out", real_reader_model, **settings) > 0.95


@pytest.mark.slow
def test_race_is_learned(tmp_path, shared_data, real_reader_model):
    data = race_folder(shared_data, tmp_path / "data")
    assert learned("race", data, tmp_path / "out", real_reader_model, epochs=6) > 0.95


@pytest.mark.slow
def test_wnli_ranking_is_learned(tmp_path, shared_data, real_reader_model):
    pytest.importorskip("spacy", reason="spaCy is not installed: pip install '.[wnli]'")
    data = winograd_folder(shared_data, tmp_path / "data")
    assert learned("wnli-ranking", data, tmp_path / "out", real_reader_model, epochs=12) > 0.95


@pytest.mark.slow
def test_qnli_ranking_is_learned(tmp_path, shared_data, real_reader_model):
    data = qnli_folder(shared_data, tmp_path / "data")
    assert learned("qnli-ranking", data, tmp_path / "out", real_reader_model, epochs=20) > 0.95


def finetune_on_rank(job, name, request):
    return finetune(build_task(name), request, job, Quiet())["history"]


@pytest.mark.slow
@pytest.mark.parametrize("name, folder_of", [("squad2.0", lambda s, f: squad_folder(s, "2.0", f)), ("race", race_folder)])
def test_two_processes_say_what_one_says(tmp_path, shared_data, real_reader_model, name, folder_of):
    data, settings = folder_of(shared_data, tmp_path / "data"), dict(epochs=1, batch_size=16)
    asked = {n: request(name, data, tmp_path / str(n), real_reader_model, **settings) for n in (1, 2)}
    [history], [first, second] = (run_on_ranks(finetune_on_rank, n, name, asked[n]) for n in (1, 2))
    assert first == second == history
    for file in (tmp_path / "1" / "model").glob("*_dev.json"):
        assert file.read_bytes() == (tmp_path / "2" / "model" / file.name).read_bytes()
    assert list((tmp_path / "1" / "model").glob("predictions_dev.json"))
