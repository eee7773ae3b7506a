"""The proof of an exact resume: it finds what is equal equal, and what is not."""

import json

import pytest

from launcher.prove_resume import compare_exactly, compare_samples, main
from robustbert.run_directory import RunDirectory
from tests.faults.conftest import lab, prepared_lab  # noqa: F401

LINE = {"loss": 5.0, "lr": 1e-3, "grad_norm": 1.0, "loss_scale": 1.0, "tokens": 64, "skipped_steps": 0}


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_real_configuration_is_proven(lab, tmp_path, capfd):  # noqa: F811
    arguments = [str(lab.config_file), "--steps", "75", "--output", str(tmp_path / "proof"), "model.dropout=0.1"]
    exit_code = main(arguments, launcher_module="tests.faults.launch")
    output = capfd.readouterr().out
    assert exit_code == 0, output
    verdict = output.split("verdict")[1]
    for leg in ("stopped and resumed", "killed and restarted", "resumed on half the processes"):
        assert f"equal    {leg}" in verdict
    assert "75 steps and the last checkpoint" in verdict and "bitwise the same" in verdict


@pytest.fixture
def two_runs(tmp_path):
    """Records of two runs of three steps, equal."""
    runs = []
    for name in ("whole", "other"):
        run = RunDirectory(tmp_path / name)
        folder = run.checkpoints / "step_00000003"
        folder.mkdir(parents=True)
        (folder / "COMMITTED").write_text("")
        manifest = {"state": {"step": 3}, "files": {"rank_00000.bin": {"bytes": 12, "xxh128": "ab"}}}
        (folder / "MANIFEST.json").write_text(json.dumps(manifest))
        for step in (1, 2, 3):
            run.append_metrics({"step": step, **LINE, "corpus_samples": {name: 8 * step}})
        runs.append(run)
    return runs


def test_equal_runs_are_equal(two_runs):
    assert compare_exactly("leg", 2, *two_runs).is_good and compare_samples("leg", 2, *two_runs).is_good


@pytest.mark.parametrize("key", ["loss", "grad_norm", "loss_scale", "tokens"])
def test_any_number_of_any_step_counts(key, two_runs):
    two_runs[1].append_metrics({"step": 3, **LINE, "corpus_samples": {"other": 24}, key: LINE[key] * (1 + 1e-12) + 1e-12})
    verdict = compare_exactly("leg", 2, *two_runs)
    assert not verdict.is_good and f"{key} of step 3" in verdict.text


def test_other_weights_with_the_same_losses_differ(two_runs):
    manifest = {"state": {"step": 3}, "files": {"rank_00000.bin": {"bytes": 12, "xxh128": "ac"}}}
    (two_runs[1].checkpoints / "step_00000003" / "MANIFEST.json").write_text(json.dumps(manifest))
    verdict = compare_exactly("leg", 2, *two_runs)
    assert not verdict.is_good and "rank_00000.bin" in verdict.text


def test_other_samples_differ(two_runs):
    two_runs[1].append_metrics({"step": 2, **LINE, "tokens": 65, "corpus_samples": {"other": 16}})
    assert "step 2 has other samples" in compare_samples("leg", 2, *two_runs).text
