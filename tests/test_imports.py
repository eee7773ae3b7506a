"""The layers of the project: imports go one way."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOUNDATION = {"config", "run_directory", "job", "progress", "json_lines", "durations", "slices", "pinned_copies", "interruption"}
MAY_IMPORT = {
    "config": set(),
    "run_directory": {"json_lines"},
    "json_lines": set(),
    "durations": set(),
    "slices": set(),
    "pinned_copies": set(),
    "job": {"progress"},
    "progress": set(),
    "interruption": set(),
    "goodput": set(),
    "memory": set(),
    "cpu_megatron": set(),
    "device": {"job", "json_lines", "memory", "cpu_megatron"},
    "parallel": FOUNDATION | {"device"},
    "kernels": set(),
    "model": FOUNDATION | {"device", "parallel", "kernels"},
    "data": FOUNDATION | {"device", "parallel"},
    "optim": FOUNDATION | {"device", "parallel", "kernels"},
    "checkpoint": FOUNDATION | {"device", "parallel"},
    "resume": FOUNDATION | {"optim", "checkpoint"},
    "convert": FOUNDATION | {"device", "parallel", "model", "data", "checkpoint"},
    "testing": FOUNDATION,
    "hardware": {"config"},
    "throughput": {"config", "hardware"},
    "plan": FOUNDATION | {"device", "cpu_megatron", "parallel", "model", "data", "optim", "hardware", "throughput"},
    "diagnosis": FOUNDATION | {"device"},
    "inspection": {"config", "checkpoint", "data"},
    "finetune": FOUNDATION | {"device", "model", "data", "optim", "convert"},
    "train": FOUNDATION | {"device", "parallel", "model", "data", "optim", "checkpoint", "convert", "resume", "throughput"},
}
MEGATRON_IS_FOR = {"parallel", "model", "optim", "checkpoint", "cpu_megatron", "testing"}


def imported_modules(path: Path) -> set[str]:
    """Every module that a file names in an import, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return names


def files_of(package: str):
    """(area, path) of every module; the area is the folder or module below the package."""
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT / package).with_suffix("").parts
        if parts != ("__init__",):
            yield parts[0], path


def test_robustbert_imports_go_one_way():
    wrong = []
    for area, path in files_of("robustbert"):
        for name in imported_modules(path):
            if name.startswith("robustbert."):
                target = name.split(".")[1]
                if target != area and target not in MAY_IMPORT[area]:
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
            if name.split(".")[0] == "launcher":
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_megatron_is_imported_only_where_it_is_the_engine():
    wrong = [
        str(path.relative_to(ROOT))
        for area, path in files_of("robustbert")
        if area not in MEGATRON_IS_FOR and any(n.split(".")[0] == "megatron" for n in imported_modules(path))
    ]
    assert not wrong, wrong


def test_only_the_configuration_parses_yaml():
    parsers = [
        str(path.relative_to(ROOT))
        for package in ("robustbert", "launcher")
        for _, path in files_of(package)
        if "yaml" in imported_modules(path)
    ]
    assert parsers == ["robustbert/config/yaml_file.py"]


def test_what_watches_runs_imports_no_training():
    """`launcher report`, `top` and `monitor` answer without torch; the dashboards' code needs nothing of ours."""
    files = [ROOT / "launcher" / "top.py", ROOT / "launcher" / "monitor.py", ROOT / "launcher" / "live_metrics.py"]
    files += [path for area, path in files_of("launcher") if area == "report"]
    allowed = {"config", "run_directory", "json_lines", "goodput", "durations"}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imported_modules(path)
        if name.split(".")[0] == "torch" or (name.startswith("robustbert.") and name.split(".")[1] not in allowed)
    ]
    wrong += [str(path) for _, path in files_of("monitoring") if {"robustbert", "launcher"} & {n.split(".")[0] for n in imported_modules(path)}]
    assert not wrong, wrong
