"""Context: what a stage knows of the machine and of the other stages, and where its numbers go."""

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Settings:
    """Of the whole script, as its stages get them."""

    rehearse: bool
    work: Path  # scratch: prepared data, runs, logs, results
    machine: dict = field(default_factory=dict)  # machine.describe()
    data: Path | None = None  # prepared corpus, tokenizer, glue/
    nccl_library: Path | None = None  # preloaded where several ranks share a card

    @property
    def num_gpus(self) -> int:
        return 0 if self.rehearse else len(self.machine.get("cards", ()))

    @property
    def results(self) -> Path:
        return self.work / "results"

    @property
    def logs(self) -> Path:
        return self.work / "logs"

    def as_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @staticmethod
    def from_json(text: str) -> "Settings":
        values = json.loads(text)
        paths = {name: Path(values[name]) if values[name] else None for name in ("work", "data", "nccl_library")}
        return Settings(**values | paths)


class Context:
    """Handed to a stage's function. Numbers are on disk as soon as they are recorded, so a stage that is killed keeps them."""

    def __init__(self, name: str, settings: Settings, limit_s: float):
        self.name = name
        self.settings = settings
        self.ends_at = time.monotonic() + limit_s
        self.values: dict = {}
        self.failures: list[str] = []
        self._file = settings.results / f"{name}.json"

    @property
    def rehearse(self) -> bool:
        return self.settings.rehearse

    @property
    def device(self) -> str:
        """The device under test."""
        return "cpu" if self.rehearse else "cuda"

    @property
    def num_processes(self) -> int:
        """Of a job with one process a card: at most two, which is what the checks need."""
        return 1 if self.rehearse else min(2, self.settings.num_gpus)

    @property
    def folder(self) -> Path:
        """The stage's own scratch folder."""
        folder = self.settings.work / self.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def left_s(self) -> float:
        """Seconds until this stage is killed."""
        return self.ends_at - time.monotonic()

    def record(self, **values) -> None:
        """Keep numbers (JSON values) under these names."""
        self.values |= values
        self.write("running", "")

    def check(self, name: str, passed: bool, **values) -> None:
        """Keep a check's numbers; one that did not pass fails the stage, which goes on with its other checks."""
        if not passed:
            self.failures.append(name)
        print(f"{'ok' if passed else 'FAILED'}: {name} {values}", flush=True)
        self.record(**{name: {"passed": passed} | values})

    def write(self, result: str, text: str, seconds: float = 0.0) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        draft = self._file.with_suffix(".draft")
        draft.write_text(
            json.dumps({"result": result, "text": text, "seconds": seconds, "values": self.values}, indent=1, default=str)
        )
        os.replace(draft, self._file)

    def of_stage(self, name: str) -> dict:
        """The values of another stage; empty where it left none."""
        file = self.settings.results / f"{name}.json"
        return json.loads(file.read_text())["values"] if file.exists() else {}
