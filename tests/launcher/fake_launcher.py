"""The launcher with small programs in place of the data preparation, the training and the summary."""

import importlib.util
import sys
import types

from launcher.cli import main
from launcher.programs import Programs

if importlib.util.find_spec("robustbert.data.prepare") is None:
    stand_in = types.ModuleType("robustbert.data.prepare")
    stand_in.check_sources = lambda data: None
    sys.modules["robustbert.data.prepare"] = stand_in
sys.exit(main(sys.argv[1:], Programs(prepare="fake_prepare", worker="fake_worker", summary="fake_summary")))
