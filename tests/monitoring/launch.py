"""The launcher, its workers replaced by moody ones."""

import sys

from launcher.cli import main
from launcher.programs import Programs

if __name__ == "__main__":
    sys.exit(main(programs=Programs(worker="tests.monitoring.moody_worker", summary="tests.faults.no_summary")))
