"""What is converted is loaded by fairseq's own RobertaModel.from_pretrained, and gives transformers' logits on real text.

fairseq lies in the folder that ROBUSTBERT_FAIRSEQ names, or is installed:
pip install --no-deps --target FOLDER fairseq==0.12.2 hydra-core==1.0.7 omegaconf==2.0.6 antlr4-python3-runtime==4.8 \
    bitarray sacrebleu portalocker tabulate colorama
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from robustbert.convert.huggingface import write_huggingface
from robustbert.data.tokenizer import train_tokenizer
from tests.convert.models import PAIRS, TEXT, random_whole

ROOT = Path(__file__).resolve().parents[2]
FAIRSEQ = os.environ.get("ROBUSTBERT_FAIRSEQ", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not FAIRSEQ and importlib.util.find_spec("fairseq") is None,
        reason="fairseq is not installed; see the top of this file and set ROBUSTBERT_FAIRSEQ to its folder",
    ),
]


def run(*arguments) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), FAIRSEQ]))}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=240, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[-1]


def test_fairseq_itself_gives_transformers_logits_on_real_text(tmp_path):
    write_huggingface(tmp_path / "huggingface", random_whole(PAIRS), train_tokenizer(iter(TEXT), 300))
    to_fairseq = ("--to", "fairseq", "--output", tmp_path / "fairseq", "--json")
    report = json.loads(run("tools/convert", tmp_path / "huggingface", *to_fairseq))
    assert report["read_by"]["result"] == "fairseq 0.12.2 itself"
    assert max(report["logit_difference"].values()) < 1e-4
    result = json.loads(run("-m", "tests.convert.fairseq_itself", tmp_path / "fairseq", tmp_path / "huggingface"))
    print(result)
    assert result["same_ids"] and result["same_settings_as_omegaconf"]
    assert max(result[name] for name in ("huggingface", "plain", "next_sentence")) < 1e-4 < result["largest_logit"]
