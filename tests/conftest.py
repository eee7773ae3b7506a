"""Fixtures for every test."""

import os
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: GPT-2's BPE, books, news, task files; skips where it is absent."""
    shared = Path(os.environ.get("ROBUSTBERT_SHARED", _REPOSITORY.parent / "shared"))
    if not (shared / "data").is_dir():
        pytest.skip(f"the real data is not in {shared / 'data'}; set ROBUSTBERT_SHARED to the folder that holds data/")
    return shared / "data"
