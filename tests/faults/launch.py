"""The launcher, its workers replaced by those that break on demand."""

import sys

from launcher.cli import main
from launcher.programs import Programs

if __name__ == "__main__":
    sys.exit(main(programs=Programs(worker="tests.faults.faulty_worker", summary="tests.faults.no_summary")))
