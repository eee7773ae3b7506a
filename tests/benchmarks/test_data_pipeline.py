"""The benchmark runs through on a small text and writes its record."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.conftest import make_text, tokenizer, tokenizer_dir  # noqa: F401

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "data_pipeline.py"


@pytest.mark.slow
def test_the_data_pipeline_benchmark_compares_and_records(tokenizer_dir, tmp_path):  # noqa: F811
    pytest.importorskip("datasets", reason="the peer's data set: pip install '.[benchmarks]'")
    (tmp_path / "text.txt").write_text(make_text(800))
    arguments = ["--text", tmp_path / "text.txt", "--tokenizer", tokenizer_dir, "--rounds", 2, "--seconds", 0.3, "--copies", 2]
    command = [sys.executable, BENCHMARK, *arguments, "--record", tmp_path / "records" / "today.md"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    rates = {name: float(ratio) for name, ratio in re.findall(r"robustbert, ([\w -]+?) +[\d.]+ +([\d.]+)x", done.stdout)}
    assert rates["full-sentences"] > 2  # the bar is 5 on an idle machine
    assert "64 corpora of the same text" in done.stdout
    record = (tmp_path / "records" / "today.md").read_text()
    assert "x the fastest peer" in record and "machine:" in record and str(tmp_path) not in record
