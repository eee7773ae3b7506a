"""One laboratory for the module's runs, and the undisturbed run that they are compared with."""

import pytest

from tests.faults.lab import FaultLab


@pytest.fixture(scope="session")
def prepared_lab(tmp_path_factory):
    lab = FaultLab(tmp_path_factory.mktemp("faults"))
    yield lab
    lab.close()


@pytest.fixture
def lab(prepared_lab):
    yield prepared_lab
    prepared_lab.close()


@pytest.fixture(scope="session")
def undisturbed(prepared_lab):
    """A finished run of two processes without a fault."""
    run = prepared_lab.submit("undisturbed")
    assert run.finish() == 0, run.story()
    return run
