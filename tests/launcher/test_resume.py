"""`launcher resume`: what it refuses changes nothing and names a way out that works; what it takes is said, recorded and kept."""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import launcher.resume as resume_module
from launcher.cli import main
from launcher.event_text import event_line
from launcher.prepare_data import prepare
from launcher.resume import replaced_config
from launcher.run_status import read_status
from launcher.supervisor_record import RunIsSupervised, SupervisorRecord, hold_lock
from launcher.worker import find_config
from robustbert.checkpoint.manifest import Manifest, commit, step_folder
from robustbert.config import ConfigError, config_to_dict, dump_config, load_config
from robustbert.data.errors import DataError, OtherData
from robustbert.data.prepare import contents_now, prepare_run, prepared_data
from robustbert.data.tokenizer import load_tokenizer
from robustbert.run_directory import RunDirectory

CONFIG = """
run: {name: small}
model: {num_layers: 2, hidden_size: 16, ffn_hidden_size: 32, num_attention_heads: 2, max_sequence_length: 32}
data: {tokenizer: {train: {vocab_size: 300}}, train: [{text: a.txt}, {text: b.txt}], valid_fraction: 0.1, prepare_workers: 1}
optim: {lr: 1.0e-3, warmup_steps: 4}
train: {steps: 20, global_batch_size: 4, micro_batch_size: 2}
monitoring: {prometheus_port: null}
"""
STEP = 12


def write_text(path: Path, word: str) -> None:
    path.write_text("\n\n\n".join(f"The {word} number {i} lies here. Nobody took it." for i in range(60)) + "\n")


def save_checkpoint(run: RunDirectory, step: int) -> None:
    """A committed checkpoint without tensors: the record of what the run was trained on."""
    config = load_config(run.config_file)
    sha256 = load_tokenizer(run.data / "tokenizer").sha256
    state = {"step": step, "tokens": 9, "tokenizer_sha256": sha256, "data": contents_now(config.data, run.data), "samples_per_step": 4}
    staging = run.checkpoints / "staging"
    staging.mkdir(parents=True)
    commit(staging, step_folder(run.checkpoints, step), Manifest(state, config_to_dict(config), {}, {}))


@pytest.fixture(scope="module")
def prepared_folder(tmp_path_factory):
    """small.yaml, two texts, and the run that was submitted with them, stopped at step 12 of 20."""
    folder = tmp_path_factory.mktemp("prepared")
    with contextlib.chdir(folder):
        Path("small.yaml").write_text(CONFIG)
        for name in "abc":
            write_text(Path(f"{name}.txt"), {"a": "amber", "b": "basalt", "c": "chalk"}[name])
        run = RunDirectory(Path("runs/small"))
        run.logs.mkdir(parents=True)
        config = load_config("small.yaml")
        run.config_file.write_text(dump_config(config))
        prepare_run(config.data, run.data)
        run.append_event("submitted")
        run.append_event("preempted", step=STEP, reason="cancelled by the user")
        (run.path / "supervisor.lock").touch()
        save_checkpoint(run, STEP)
    return folder


@pytest.fixture
def run(prepared_folder, tmp_path, monkeypatch):
    """That run in a folder of its own; nothing is really started."""
    shutil.copytree(prepared_folder, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(resume_module, "run_in_foreground", lambda run, config, programs, lock: 0)
    return RunDirectory(Path("runs/small"))


def files(folder: Path = Path(".")) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(capsys, *overrides: str) -> list[str]:
    """The lines of a resume that is refused; nothing on disk has changed."""
    before = files()
    assert main(["resume", "small", *overrides]) == 2
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert output.out == "" and lines and all(line.startswith("launcher: error: ") for line in lines)
    assert files() == before
    return lines


def taken(capsys, *overrides: str) -> str:
    """What a resume says that is taken."""
    code, output = main(["resume", "small", *overrides]), capsys.readouterr()
    assert code == 0, output.err
    return output.out


OTHER_DATA = {
    "order": "data.train=[{text: b.txt}, {text: a.txt}]",
    "another text": "data.train=[{text: a.txt}, {text: c.txt}]",
    "another reader": "data.train=[{text: a.txt}, {text: b.txt, reader: jsonl}]",
    "one more": "data.train=[{text: a.txt}, {text: b.txt}, {text: c.txt}]",
    "one fewer": "data.train=[{text: a.txt}]",
    "weights": "data.train=[{text: a.txt, weight: 1}, {text: b.txt, weight: 2}]",
    "valid_fraction": "data.valid_fraction=0.2",
    "seed": "run.seed=2",
    "sequence_length": "data.sequence_length=16",
    "format": "data.format=doc-sentences",
}


@pytest.mark.parametrize("name", OTHER_DATA)
def test_other_data_are_refused_and_the_new_run_that_is_named_can_be_submitted(name, run, capsys):
    override = OTHER_DATA[name]
    for line in refused(capsys, override, "train.steps=30"):
        key = override.partition("=")[0]
        assert line.startswith(f"launcher: error: {key}") and f"leave {key} as it is, or begin a new run with its weights: launcher submit" in line
        words = shlex.split(line.partition("with its weights: ")[2])
        assert words[:2] == ["launcher", "submit"] and {override, "train.steps=30", "run.name=small-2", "train.start_from=runs/small"} <= set(words)
        dry = main([*words[1:], "--dry-run"])
        assert dry == 0, capsys.readouterr()


def test_another_shape_is_refused_with_a_new_run_that_takes_no_weights(run, capsys):
    (line,) = refused(capsys, "model.num_layers=4")
    assert "model.num_layers: 2 -> 4: the weights of the run have this shape" in line and "start_from" not in line
    assert line.endswith("begin a new run: launcher submit runs/small/config.yaml model.num_layers=4 run.name=small-2")


def test_every_change_that_is_refused_has_its_line(run, capsys):
    assert len(refused(capsys, "model.num_layers=4", "run.seed=3", "optim.lr=5e-4")) == 2


@pytest.mark.parametrize("key", ["run.name=other", "run.dir=elsewhere", "model.preset=roberta-base"])
def test_what_no_resume_changes_is_refused_also_before_the_first_checkpoint(key, run, capsys):
    shutil.rmtree(run.checkpoints)
    assert key.partition("=")[0] in refused(capsys, key)[0]


def test_a_configuration_that_cannot_work_is_not_kept_and_one_that_was_kept_is_set_back(run, capsys):
    """As a run has it whose config.yaml was edited by hand: the way out is one command, and it works."""
    run.config_file.write_text(dump_config(load_config(run.config_file, ["model.num_layers=4", "data.train=[{text: a.txt}]"])))
    lines = refused(capsys)
    overrides = [shlex.split(line.partition("set it back: ")[2].partition(", or begin")[0])[-1] for line in lines]
    assert overrides == ["model.num_layers=2", "data.train=[{text: a.txt}, {text: b.txt}]"]
    taken(capsys, *overrides)
    assert load_config(run.config_file) == load_config("small.yaml")


def test_fewer_steps_than_are_done_are_refused(run, capsys):
    (line,) = refused(capsys, "train.steps=11")
    assert "train.steps: 20 -> 11: the run has done 12 steps" in line and line.endswith("leave train.steps as it is")


def test_what_the_run_learns_is_said_recorded_and_kept(run, capsys):
    said = taken(capsys, "train.steps=40", "data.masking.probability=0.3", "parallel.recompute=full")
    assert "run small continues from step 12" in said
    assert "  data.masking.probability: 0.15 -> 0.3 (" in said
    assert "  train.steps: 20 -> 40 (the learning rate at step 13 goes from 0.0005 to 0.000778" in said
    assert "\n  parallel" not in said, "what the run does not learn by is not told"
    assert "for one that continues to fall from 0.000563: optim.lr=0.000723" in said
    assert "with these weights: launcher submit runs/small/config.yaml" in said
    assert load_config(run.config_file) == load_config("small.yaml", ["train.steps=40", "data.masking.probability=0.3", "parallel.recompute=full"])
    assert load_config(run.path / "config.before-resume-1.yaml") == load_config("small.yaml")
    (event,) = [event for event in run.events() if event["event"] == "config_changed"]
    assert event["step"] == STEP and len(event["changes"]) == 2
    assert event_line(event).startswith(f"the configuration changed at step {STEP}: data.masking.probability: 0.15 -> 0.3")


def test_compared_is_the_checkpoint_and_not_only_the_file(run, capsys):
    """A change that an earlier resume kept, before any step was saved with it, is told again."""
    taken(capsys, "optim.weight_decay=0.1")
    assert "optim.weight_decay: 0.01 -> 0.1" in taken(capsys)


def test_a_reader_that_is_only_spelled_out_is_the_same(run, capsys):
    taken(capsys, "data.train=[{text: a.txt, reader: plain}, {text: b.txt}]")


def test_a_run_that_was_moved_is_the_same(run):
    shutil.move("runs", "moved")


def by_path(run) -> str:
    """The run as one whose data.train are paths; returns the folder that they are in."""
    shutil.copytree(run.data, "indexed")
    train = "data.train=[{path: indexed/train_0000}, {path: indexed/train_0001}]"
    rest = "data.valid=[{path: indexed/valid_0000}]", "data.valid_fraction=0", "data.tokenizer=indexed/tokenizer"
    config = load_config("small.yaml", [train, *rest])
    run.config_file.write_text(dump_config(config))
    shutil.rmtree(run.checkpoints)
    save_checkpoint(run, STEP)
    return "indexed"


def swap(folder: str, first: str, second: str) -> None:
    for path in list(Path(folder).glob(f"{first}.*")):
        other = path.with_name(path.name.replace(first, second))
        path.rename(f"{path}.aside")
        other.rename(path)
        Path(f"{path}.aside").rename(other)


def test_indexed_data_in_another_place_are_the_same_and_not_in_another_order(run, capsys):
    shutil.move(by_path(run), "moved")
    rest = "data.valid=[{path: moved/valid_0000}]", "data.tokenizer=moved/tokenizer"
    lines = refused(capsys, "data.train=[{path: moved/train_0001}, {path: moved/train_0000}]", *rest)
    assert len(lines) == 2 and "data.train[0]: indexed/train_0000 -> moved/train_0001: the run has learned from the former" in lines[0]
    taken(capsys, "data.train=[{path: moved/train_0000}, {path: moved/train_0001}]", *rest)


def test_other_indexed_data_at_the_same_path_are_refused(run, capsys):
    swap(by_path(run), "train_0000", "train_0001")
    lines = refused(capsys)
    assert len(lines) == 2
    assert "its indexed data are not those that the checkpoint of step 12 was trained on; bring those back, or begin a new run" in lines[0]


def test_other_held_out_data_are_taken_and_said(run, capsys):
    by_path(run)
    said = taken(capsys, "data.valid=[{path: indexed/valid_0001}]")
    assert "data.valid: indexed/valid_0000 -> indexed/valid_0001 (held-out perplexities before and after are of other texts)" in said
    swap("indexed", "valid_0000", "valid_0001")
    assert "the held-out text is another than at step 12, under the same name" in taken(capsys, "data.valid=[{path: indexed/valid_0000}]")
    (line,) = refused(capsys, "data.valid=[{text: c.txt}]")
    assert "prepare it with tools/preprocess and give its path: 'data.valid=[{path: PREFIX}]'" in line


def test_prepared_text_of_another_name_is_refused(run, capsys):
    swap("runs/small/data", "train_0000", "train_0001")
    (line,) = refused(capsys)
    assert "train_0000: was made of b.txt" in line and "names a.txt" in line


def test_a_text_that_changed_since_is_said_and_refused_where_it_is_meant(run, capsys):
    write_text(Path("b.txt"), "basalt and more")
    said = taken(capsys)
    assert "note: b.txt had" in said and "since the data was prepared; the run continues on what it has prepared" in said
    (line,) = refused(capsys, "data.train=[{text: a.txt}, {text: b.txt}]")
    assert "a run reads one text from its first step to its last" in line
    Path("b.txt").unlink()
    assert "b.txt" not in taken(capsys), "a text that is gone is not needed any more"


def test_relative_paths_mean_the_folder_of_submit_wherever_the_run_is_resumed(run, capsys, tmp_path, monkeypatch):
    run.append_event("submitted", folder=str(Path.cwd()))
    run.events_file.write_text("\n".join(run.events_file.read_text().splitlines()[1:]) + "\n")
    folder = Path.cwd()
    monkeypatch.chdir(tmp_path)
    assert main(["resume", str(folder / "runs/small")]) == 0
    assert "note" not in capsys.readouterr().out


def test_before_the_first_checkpoint_everything_may_change(run, capsys):
    shutil.rmtree(run.checkpoints)
    taken(capsys, "model.num_layers=4", "data.train=[{text: c.txt}]", "run.seed=5", "train.steps=5")
    assert main(["resume", "small", "data.train=[{text: none.txt}]"]) == 2, "but it must be there"
    assert load_config(run.config_file).data.train[0].text == "c.txt"


def test_a_damaged_manifest_leaves_the_configuration_file_to_compare_with(run, capsys):
    (step_folder(run.checkpoints, STEP) / "MANIFEST.json").write_text("{}")
    assert "model.num_layers: 2 -> 4" in refused(capsys, "model.num_layers=4")[0]
    assert "run has done 12 steps" in refused(capsys, "train.steps=11")[0]


def test_a_run_whose_summary_is_being_written_is_waited_for(run, capsys):
    run.append_event("finished", step=20)
    SupervisorRecord.of_this_process().write(run)
    (line,) = refused(capsys, "train.steps=30")
    assert "has finished at step 20 and its summary is being written; wait for it: launcher status small" in line


def test_while_another_command_has_the_run_nothing_changes(run, capsys):
    with hold_lock(run):
        (line,) = refused(capsys, "train.steps=30")
    assert "already running" in line
    taken(capsys, "train.steps=30")


def test_the_lock_is_handed_over_without_a_moment_in_which_nobody_has_it(run):
    program = "import sys; from pathlib import Path; from launcher.supervisor_record import hold_lock; from robustbert.run_directory import RunDirectory\n"
    program += "with hold_lock(RunDirectory(Path('runs/small')), descriptor=int(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    with hold_lock(run) as lock:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(lock.descriptor)],
            pass_fds=(lock.descriptor,), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        lock.release()
        with pytest.raises(RunIsSupervised), hold_lock(run):  # the child may not have begun yet
            pass
        assert child.stdout.readline() == "held\n"
    with pytest.raises(RunIsSupervised), hold_lock(run):
        pass
    child.communicate()
    with hold_lock(run):
        pass


def test_a_queue_that_refuses_leaves_the_configuration_as_it_was(run):
    before = files()
    former = load_config(run.config_file)
    with pytest.raises(ConfigError), replaced_config(run, former, load_config(run.config_file, ["train.steps=30"])):
        assert load_config(run.config_file).train.steps == 30
        raise ConfigError("sbatch: error: invalid partition")
    assert files() == before


def test_all_processes_of_a_supervision_read_its_configuration(run):
    """Not the file that a later command may change; a process that was started by hand has nothing else."""
    supervised = run.supervised_config_file("0123456789abcdef")
    assert find_config(run, "0123456789abcdef") == run.config_file
    supervised.write_text(dump_config(load_config(run.config_file, ["train.steps=17"])))
    assert find_config(run, "0123456789abcdef") == supervised and find_config(run, None) == run.config_file
    SupervisorRecord.of_this_process().write(run)
    assert read_status(run).total_steps == 20
    job_mark = json.loads((run.path / "supervisor.json").read_text())["job_mark"]
    run.supervised_config_file(job_mark).write_text(supervised.read_text())
    assert read_status(run).total_steps == 17


@pytest.mark.parametrize("name", ["order", "another text", "another reader", "valid_fraction"])
def test_nothing_is_prepared_or_read_under_a_name_that_is_not_its_own(name, run):
    """Also where config.yaml was changed by hand and the run is supervised without `resume`."""
    run.config_file.write_text(dump_config(load_config(run.config_file, [OTHER_DATA[name]])))
    before = files(run.data)
    with pytest.raises(OtherData, match="was made of"):
        prepare(run, run.config_file)
    with pytest.raises(OtherData, match="was made of"):
        prepared_data(load_config(run.config_file).data, run.data)
    assert files(run.data) == before


def test_lost_data_come_back_from_the_same_text_and_not_from_another(run):
    config, lost = load_config(run.config_file), run.data / "valid_0001.bin"
    recorded = contents_now(config.data, run.data)
    lost.unlink()
    os.utime("b.txt")  # written again as it was, as a copy is
    prepare(run, run.config_file)
    assert contents_now(config.data, run.data) == recorded
    lost.unlink()
    write_text(Path("b.txt"), "basalt and more")
    before = files(run.data)
    with pytest.raises(DataError, match="b.txt had .* bring the text or the data back"):
        prepare(run, run.config_file)
    assert files(run.data) == before


def test_data_that_were_lost_as_a_whole_are_not_replaced_by_those_of_another_text(run):
    """Nothing of the other text stays, so the run continues as soon as its own is back."""
    text, kept = Path("b.txt").read_text(), files(run.data)
    shutil.rmtree(run.data)
    write_text(Path("b.txt"), "basalt and more")
    with pytest.raises(DataError, match="was lost, and the text of data.train is not what step_00000012 was trained on; bring the text or that folder"):
        prepare(run, run.config_file)
    assert not list(run.data.glob("*.bin")) and not list(run.data.glob("*_*.json"))
    Path("b.txt").write_text(text)
    prepare(run, run.config_file)
    assert files(run.data).keys() == kept.keys()
    assert contents_now(load_config(run.config_file).data, run.data)["train"]
