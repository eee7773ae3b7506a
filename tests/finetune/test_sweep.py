"""Sweeps, their tables, ensembles and submissions, on tasks of a few sentences."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from robustbert.finetune import commands, sweep
from robustbert.finetune.cli import _parser, main
from robustbert.finetune.output import write_json
from robustbert.finetune.published import COLUMNS, TABLE_5_DEV, TABLE_8, TABLES
from robustbert.finetune.settings import FinetuneError
from robustbert.finetune.submission import TEST_ROWS, write_zip
from robustbert.finetune.sweep import Cell, SweepRequest, chosen_model, grid_cells, parse_grid, run_sweep
from robustbert.finetune.table import summarise, write_table
from robustbert.finetune.tasks import GLUE, build_task
from robustbert.job import Job
from tests.finetune.made_glue import write_made_glue

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = (sys.executable, str(ROOT / "tools" / "finetune"))
TINY = ["--epochs", "1", "--lr", "1e-3", "--batch-size", "16", "--max-length", "32"]


class FakeOutput:
    """A cell's folder with the result that a test wants."""

    def __init__(self, seed, accuracy):
        self._result = None if accuracy is None else {
            "seed": seed,
            "start_from": "",
            "watched": {"value": accuracy},
            "metrics": {"dev": {"accuracy": accuracy}},
        }

    def result(self):
        return self._result


def fake_cells():
    accuracies = {1e-5: (0.90, 0.80, 0.95, 0.10, 0.92), 2e-5: (0.91, 0.91, 0.50, 0.91, None)}
    for cell in grid_cells("sst-2", {"lr": (1e-5, 2e-5)}, (1, 2, 3, 4, 5)):
        yield cell, FakeOutput(cell.seed, accuracies[cell.values["lr"]][cell.seed - 1])


def test_grid_is_every_setting_with_every_seed():
    cells = grid_cells("mrpc", build_task("mrpc").grid, (1, 2, 3, 4, 5))
    assert len(cells) == len({cell.name for cell in cells}) == 3 * 2 * 5
    assert cells[0] == Cell("mrpc", {"lr": 1e-5, "batch_size": 16}, 1)
    assert cells[0].name == "mrpc/lr=1e-05,batch_size=16/seed=1"


def test_grid_of_the_command_line_replaces_and_adds():
    assert parse_grid(["lr=1e-4,2e-4", "warmup-ratio=0.1"], {"lr": (1e-5,), "batch_size": (16,)}) == {
        "lr": (1e-4, 2e-4),
        "batch_size": (16,),
        "warmup_ratio": (0.1,),
    }
    for word, message in (
        ("rate=1", "names are lr, "),
        ("lr", "name=value,value"),
        ("lr=fast", "no values of type float"),
        ("epochs=1,1", "stands there twice"),
        ("batch_size=0", "--batch-size must be above 0"),
        ("seed=1,2", "names are lr, "),
    ):
        with pytest.raises(FinetuneError, match=message):
            parse_grid([word], {})


def test_best_setting_is_that_of_the_highest_median():
    summary = summarise(fake_cells())["sst-2"]
    assert summary["best"]["setting"] == {"lr": 2e-5} and summary["best"]["seeds"] == [1, 2, 3, 4]
    score = summary["best"]["scores"]["SST"]
    assert (score["median"], score["least"], score["greatest"]) == (pytest.approx(91), pytest.approx(50), pytest.approx(91))
    assert summary["settings"][0]["scores"]["SST"]["median"] == pytest.approx(90)


def test_table_stands_beside_the_papers(tmp_path):
    text = write_table(tmp_path, summarise(fake_cells()))
    assert "| **this model**, median | **91.0** |" in text and "| paper, Table 5: RoBERTa large | 96.4 |" in text
    assert "| sst-2 | lr 2e-05 | 4 of 5 | **91.0** | 50.0 to 91.0 |" in text
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["published"]["Table 8"]["RoBERTa base, all data, 500k steps"] == {"SST": 94.8}


@pytest.mark.parametrize(
    "task, metrics, row",
    [
        ("race", {"dev": {"accuracy": 0.5}}, "| race | lr 1e-05 | 1 | 50.0 (development set) | - |"),
        ("race", {"dev": {}, "test": {"accuracy": 0.4, "accuracy_high": 0.4}}, "| race | lr 1e-05 | 1 | **40.0** | 40.0 to 40.0 |"),
        ("wnli-ranking", {"wsc_dev": {"accuracy": 0.5}}, "| wnli-ranking | lr 1e-05 | 1 | 50.0 (development set) | - |"),
    ],
)
def test_table_does_without_the_sets_that_are_not_there(tmp_path, task, metrics, row):
    output = FakeOutput(1, 0.5)
    output.result()["metrics"] = metrics
    text = write_table(tmp_path, summarise([(Cell(task, {"lr": 1e-5}, 1), output)]))
    assert row in text and (tmp_path / "table.json").exists()


def test_a_cell_is_found_by_its_name():
    for cell in (Cell("mrpc", {"lr": 1e-5, "batch_size": 16, "beta2": 0.98}, 3), Cell("sst-2", {}, 1)):
        assert Cell.of_name(cell.name) == cell


def test_a_sweep_grows_by_seeds_and_rates_and_by_nothing_else(tmp_path, monkeypatch):
    def members(rates, seeds, *options):
        cells = tuple(grid_cells("mrpc", {"lr": rates}, seeds))
        model = tmp_path / "model"
        run_sweep(SweepRequest(tmp_path / "sweep", tmp_path, model, model, None, options, PROGRAM, cells))
        return [member["name"] for member in json.loads((tmp_path / "sweep" / "sweep.json").read_text())["members"]]

    monkeypatch.setattr(sweep, "_run", lambda words, environment: 0)
    first = members((1e-4,), (1, 2), "--epochs", "3")
    grown = members((3e-4, 1e-4), (2,), "--epochs", "3")
    assert grown == [*first, "mrpc/lr=0.0003/seed=2"]
    for rates, seeds, options in [((1e-4,), (1,), ()), ((1e-3,), (7,), ("--epochs", "4")), ((1e-3,), (7,), ("--epochs", "3", "--untrained"))]:
        with pytest.raises(FinetuneError, match="belongs to a sweep of other commands"):
            members(rates, seeds, *options)
    assert members((1e-4,), (1,), "--epochs", "3") == grown
    for task, folder in (("rte", tmp_path / "sweep"), ("mrpc", tmp_path / "moved")):
        if not folder.exists():
            (tmp_path / "sweep").rename(folder)
        cells = tuple(grid_cells(task, {"lr": (1e-4,)}, (1,)))
        with pytest.raises(FinetuneError, match="belongs to a sweep of other commands"):
            run_sweep(SweepRequest(folder, tmp_path, tmp_path / "model", tmp_path / "model", None, ("--epochs", "3"), PROGRAM, cells))
    for name in ("lr=1", "sst-2/optim.lr=1/seed=1", "sst-2/lr=fast/seed=1"):
        write_json(tmp_path / "moved" / "sweep.json", {"members": [{"name": name, "command": ["launcher", "submit"]}]})
        with pytest.raises(FinetuneError, match="belongs to a sweep of other commands"):
            run_sweep(SweepRequest(tmp_path / "moved", tmp_path, tmp_path / "model", tmp_path / "model", None, (), PROGRAM, cells))


def test_a_sweep_goes_on_with_the_model_that_it_began_with(tmp_path):
    (tmp_path / "first").mkdir()
    content = {"model": {"asked": str(tmp_path / "run"), "folder": str(tmp_path / "converted")}}
    (tmp_path / "first" / "sweep.json").write_text(json.dumps(content))
    assert chosen_model(tmp_path, tmp_path / "run") is None  # it is gone
    (tmp_path / "converted").mkdir()
    assert chosen_model(tmp_path, tmp_path / "run") == tmp_path / "converted"
    assert chosen_model(tmp_path, tmp_path / "other") is None and chosen_model(tmp_path, None) is None


@pytest.mark.parametrize("mnli_ends, second_stage", [(True, True), (False, False)])
def test_a_failure_elsewhere_does_not_keep_the_second_stage_from_mnli(tmp_path, monkeypatch, capsys, mnli_ends, second_stage):
    """cola fails in the first stage; RTE waits for MNLI only."""
    started = []

    def run_first(request):
        started.append([cell.task for cell in request.cells])
        for cell in request.cells:
            output = request.output(cell)
            output.path.mkdir(parents=True)
            if cell.task == "rte" or (cell.task == "mnli" and mnli_ends):
                output.finish({"seed": cell.seed, "start_from": "", "watched": {"value": 0.5}, "metrics": {}})
        write_json(request.folder / "sweep.json", {"members": [{"name": cell.name} for cell in request.cells]})
        return 0 if request.folder.name == "from-mnli" else 1

    monkeypatch.setattr(commands, "run_sweep", run_first)
    words = ["glue", "--model", str(tmp_path), "--data", str(tmp_path), "--output", str(tmp_path / "sweep"), "--tasks", "cola,mnli,rte", "--seeds", "1"]
    options = _parser().parse_intermixed_args([*words, "--lr", "1e-3", "--batch-size", "16"])
    assert commands._sweep_glue(options, PROGRAM, ["cola", "mnli", "rte"], tmp_path) == 1
    assert started == [["cola", "mnli"], ["rte"]][: 1 + second_stage]
    assert second_stage or "rte start when all of mnli is finished" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_sweep_stops_its_members(tmp_path, glue, tiny_model, number):
    words = ["cola", "--sweep", "--model", str(tiny_model), "--data", str(glue), "--output", str(tmp_path / "sweep"), "--seeds", "1,2"]
    words += ["--epochs", "400", "--lr", "1e-3", "--batch-size", "16", "--max-length", "32"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with open(tmp_path / "output", "w") as output:
        process = subprocess.Popen([*PROGRAM, *words], env=environment, stdout=output, stderr=output, process_group=0)
    member = tmp_path / "sweep/runs/cola/default/seed=1"
    deadline = time.monotonic() + 60
    while not (member / "metrics.jsonl").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, number)  # as a terminal or a scheduler does
    assert process.wait(40) == 128 + number
    assert "of 2" in (tmp_path / "output").read_text()
    written = (member / "metrics.jsonl").stat().st_size
    time.sleep(1.5)
    assert (member / "metrics.jsonl").stat().st_size == written  # no member is left
    assert not (member / "result.json").exists()


def test_published_figures_are_the_papers():
    assert list(TABLE_5_DEV["RoBERTa large"].values()) == [90.2, 90.2, 94.7, 92.2, 86.6, 96.4, 90.9, 68.0, 92.4, 91.3]
    last = TABLE_8["RoBERTa large, + pretrain longer 500k"]
    assert all(TABLE_5_DEV["RoBERTa large"][title] == figure for title, figure in last.items())
    titles = {column.title for columns in COLUMNS.values() for column in columns}
    assert all(title in titles for rows in TABLES.values() for row in rows.values() for title in row)


def test_zip_takes_only_what_the_server_does(tmp_path):
    good = "index\tprediction\n" + "".join(f"{i}\t0\n" for i in range(TEST_ROWS["WNLI.tsv"]))
    missing = write_zip(tmp_path / "submission.zip", {"WNLI.tsv": good})
    assert missing == [name for name in TEST_ROWS if name != "WNLI.tsv"]
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        assert archive.namelist() == ["WNLI.tsv"] and archive.read("WNLI.tsv").decode() == good
    before = (tmp_path / "submission.zip").read_bytes()
    for path, name, text, message in (
        ("submission.zip", "WNLI.tsv", good, "exists; nothing is overwritten"),
        ("b.zip", "wnli.tsv", good, "takes no file wnli.tsv"),
        ("b.zip", "WNLI.tsv", good[:-6], "145 predictions, the leaderboard wants 146"),
    ):
        with pytest.raises(FinetuneError, match=message):
            write_zip(tmp_path / path, {name: text})
    assert [path.name for path in tmp_path.iterdir()] == ["submission.zip"]
    write_zip(tmp_path / "again.zip", {"WNLI.tsv": good})
    assert (tmp_path / "again.zip").read_bytes() == before


@pytest.mark.parametrize("name, rows", [("SST-2", 1821), ("MRPC", 1725), ("RTE", 3000), ("WNLI", 146)])
def test_submission_of_real_test_sets_has_their_rows(shared_data, tmp_path, name, rows):
    task = build_task(name.lower())
    examples = task.read(shared_data / "glue" / name, "test")
    files = task.prediction_files("test", examples, [i % 2 for i in range(len(examples))])
    assert list(files) == [f"{name}.tsv"]
    write_zip(tmp_path / "submission.zip", files)
    lines = files[f"{name}.tsv"].splitlines()
    assert len(lines) == rows + 1 and lines[0] == "index\tprediction"
    assert lines[2] == ("1\tentailment" if name == "RTE" else "1\t1")


def test_labels_of_a_submission_are_the_leaderboards(tmp_path):
    glue = write_made_glue(tmp_path, num_train=2, num_dev=2)
    expected = {"mnli": [0, 2, 1], "qnli": [1, 0], "sts-b": [0.51239, 5.25], "cola": [1]}
    texts = {}
    for name, predictions in expected.items():
        task = build_task(name)
        examples = task.read(glue / task.folders[0], task.test_splits[-1] if name == "mnli" else "test")[: len(predictions)]
        texts |= task.prediction_files(task.test_splits[-1], examples, predictions)
    assert texts == {
        "AX.tsv": "index\tprediction\n0\tcontradiction\n1\tentailment\n2\tneutral\n",
        "QNLI.tsv": "index\tprediction\n0\tentailment\n1\tnot_entailment\n",
        "STS-B.tsv": "index\tprediction\n0\t0.512\n1\t5.000\n",
        "CoLA.tsv": "index\tprediction\n0\t1\n",
    }


def test_average_of_two_models_lies_between_them():
    task = build_task("mnli")
    one, other = np.array([4.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
    average = task.average([one, other])
    chances = np.exp(average)
    assert chances.sum() == pytest.approx(1)
    assert chances[0] == pytest.approx((np.exp(4) / (np.exp(4) + 2) + 1 / (np.e + 2)) / 2)
    assert build_task("sts-b").average([np.array([1.0]), np.array([4.0])]) == pytest.approx(2.5)


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    return write_made_glue(tmp_path_factory.mktemp("glue"), num_train=32, num_dev=16)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_glue_sweep_goes_from_mnli_to_the_leaderboard(tmp_path, glue, tiny_model, capfd):
    folder, tasks = tmp_path / "sweep", "mnli,rte"
    words = ["glue", "--model", str(tiny_model), "--data", str(glue), "--output", str(folder), "--tasks", tasks, "--seeds", "1,2", "--parallel", "2"]
    assert main([*words, *TINY], program=PROGRAM) == 0
    names = sorted(str(path.parent.relative_to(folder)) for path in folder.rglob("result.json"))
    assert names == [f"{stage}/default/seed={seed}" for stage in ("first/runs/mnli", "from-mnli/runs/rte") for seed in (1, 2)]
    result = json.loads((folder / "from-mnli/runs/rte/default/seed=1/result.json").read_text())
    assert "/first/runs/mnli/" in result["start_from"]
    table = (folder / "table.md").read_text()
    assert "| | MNLI-m | MNLI-mm | RTE |" in table
    assert "rte, from a finetuned model" in table

    times = {path: path.stat().st_mtime_ns for path in folder.rglob("result.json")}
    assert main([*words, *TINY], program=PROGRAM) == 0
    assert "all 2 members are done" in capfd.readouterr().out
    assert times == {path: path.stat().st_mtime_ns for path in folder.rglob("result.json")}
    assert main([*words, *TINY, "--weight-decay", "0"], program=PROGRAM) == 2
    assert "belongs to a sweep of other commands" in capfd.readouterr().err

    mnli = {path: json.loads(path.read_text()) for path in (folder / "first").rglob("result.json")}
    other = next(path for path in mnli if str(path.parent) != result["start_from"])
    other.write_text(json.dumps(mnli[other] | {"watched": mnli[other]["watched"] | {"value": 1.0}}))  # the best one now
    times[other] = other.stat().st_mtime_ns
    words[words.index("1,2")] = "2,3"
    assert main([*words, *TINY], program=PROGRAM) == 0
    grown = {path: path.stat().st_mtime_ns for path in folder.rglob("result.json")}
    assert len(grown) == 6 and times.items() < grown.items()  # only seed 3 was run
    starts = {json.loads(path.read_text())["start_from"] for path in (folder / "from-mnli").rglob("result.json")}
    assert starts == {result["start_from"]}
    assert "| mnli | default | 3 |" in (folder / "table.md").read_text()

    rows = {"MNLI-m.tsv": 8, "MNLI-mm.tsv": 9, "AX.tsv": 5, "RTE.tsv": 8}
    words = ["glue", "--submit", str(folder), "--size", "2", "--data", str(glue), "--output", str(tmp_path / "glue.zip")]
    options = _parser().parse_intermixed_args(words)
    assert commands.submit(options, Job(), rows) == 0
    with zipfile.ZipFile(tmp_path / "glue.zip") as archive:
        assert sorted(archive.namelist()) == sorted(rows)
        lines = archive.read("MNLI-mm.tsv").decode().splitlines()
        assert len(lines) == 10 and lines[1].split("\t")[0] == "0"
        assert {line.split("\t")[1] for line in lines[1:]} <= {"contradiction", "neutral", "entailment"}


@pytest.mark.slow
def test_ensemble_scores_better_than_its_worst_member(tmp_path, glue, tiny_model, capsys):
    members = [str(tmp_path / f"seed{seed}") for seed in (1, 2, 3)]
    for seed, member in enumerate(members, 1):
        words = ["sst-2", "--model", str(tiny_model), "--data", str(glue), "--output", member, "--seed", str(seed)]
        assert main([*words, "--epochs", "4", "--lr", "3e-3", "--max-length", "32"]) == 0
    words = ["sst-2", "--ensemble", *members, "--data", str(glue), "--output", str(tmp_path / "ensemble")]
    assert main(words) == 0
    result = json.loads((tmp_path / "ensemble" / "result.json").read_text())
    singles = [member["metrics"]["dev"]["accuracy"] for member in result["members"]]
    assert len(singles) == 3 and min(singles) <= result["metrics"]["dev"]["accuracy"] <= 1
    assert len((tmp_path / "ensemble" / "SST-2.tsv").read_text().splitlines()) == 9
    assert main(words) == 2 and "nothing is overwritten" in capsys.readouterr().err
    words[-1] = str(tmp_path / "other")
    words[0] = "rte"
    assert main(words) == 2 and "is a finetuning of sst-2, not of rte" in capsys.readouterr().err
    assert set(GLUE) >= {"rte", "sst-2"}
