"""Stands in for the summary of a finished run."""

import os
import sys
from pathlib import Path

(Path(sys.argv[1]) / "summary.txt").write_text(f"the summary of {sys.argv[1]}\n")
print("a warning that is of no use to the user", file=sys.stderr)
sys.exit(int(os.environ.get("FAKE_SUMMARY", "0")))
