"""The `launcher` command, also as `python -m launcher`."""

import sys

from robustbert.interruption import ends_by_signals


def main() -> None:
    """Run the command as the whole program."""
    with ends_by_signals("launcher", is_process=True):  # before anything else is imported
        from launcher.cli import main as run

        sys.exit(run())


if __name__ == "__main__":
    main()
