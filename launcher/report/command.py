"""`launcher report`: reads the runs, writes the page, says where it lies."""

import argparse
from pathlib import Path

from launcher.report.page import build_page
from launcher.report.picture import find_chromium, take_picture
from launcher.report.record import RunRecord
from launcher.run_lookup import find_run
from robustbert.config import ConfigError


def report(options: argparse.Namespace) -> int:
    """Write one page about all the runs named; by default into the directory of the first."""
    runs = [find_run(name, Path(options.dir)) for name in dict.fromkeys(options.runs)]
    output = Path(options.output) if options.output else runs[0].path / "report.html"
    if options.png:
        find_chromium()  # its error before the work
    for path in (output, Path(options.png or output)):
        if not path.absolute().parent.is_dir():
            raise ConfigError(f"{path}: its folder does not exist; make it: mkdir -p {path.absolute().parent}")
    page = build_page([RunRecord(run) for run in runs])
    partial = output.with_name(output.name + ".partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(output)
    print(f"{output}  ({len(page) / 1e6:.1f} MB; open it in any browser)")
    if options.png:
        take_picture(output, Path(options.png))
        print(options.png)
    return 0
