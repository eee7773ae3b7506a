"""What Prometheus finds a run's exporters by: RUNS/.prometheus/NAME.json, a file of its file_sd_configs."""

import contextlib
import json
import os
from pathlib import Path

from robustbert.json_lines import say_error
from robustbert.run_directory import RunDirectory

FOLDER = ".prometheus"


def targets_file(run: RunDirectory) -> Path:
    """Where the run's targets are, while it runs."""
    return run.path.parent / FOLDER / f"{run.path.name}.json"


class TargetsFile:
    """Written when its content changes, removed when the run ends."""

    def __init__(self, run: RunDirectory):
        self._run_name = run.path.name
        self._path = targets_file(run)
        self._written: dict | None = None
        self._has_complained = False

    def update(self, supervisor: tuple[str, str], nodes: dict[str, str]) -> None:
        """supervisor: (host, address); nodes: their exporters' addresses by host. On a full disk it is tried again."""
        content = {"supervisor": supervisor, "nodes": dict(sorted(nodes.items()))}
        if content == self._written:
            return
        groups = [self._group(supervisor[1], "supervisor", supervisor[0])]
        groups += [self._group(address, "node", node) for node, address in content["nodes"].items()]
        draft = self._path.with_name(f".{self._path.name}.draft")  # no *.json: Prometheus reads those
        try:
            self._path.parent.mkdir(exist_ok=True)
            draft.write_text(json.dumps(groups, indent=1) + "\n", encoding="utf-8")
            os.replace(draft, self._path)
            self._written = content
        except OSError as error:
            if not self._has_complained:
                say_error(f"{self._path} cannot be written ({error.strerror}); Prometheus may not find the run")
            self._has_complained = True

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _group(self, address: str, role: str, node: str) -> dict:
        return {"targets": [address], "labels": {"run": self._run_name, "node": node, "role": role}}
