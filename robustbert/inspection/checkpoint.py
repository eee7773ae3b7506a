"""What a checkpoint holds."""

from pathlib import Path

from robustbert.checkpoint.manifest import read_manifest


def describe_checkpoint(folder: Path) -> list[str]:
    """Lines about a committed checkpoint. CheckpointError where it is none."""
    facts = checkpoint_facts(folder)
    return [
        f"checkpoint   {folder}",
        *(f"{key:12} {value}" for key, value in facts["state"].items()),
        f"layout       {', '.join(f'{axis} {size}' for axis, size in facts['layout'].items())}",
        f"model        {', '.join(f'{key} {value}' for key, value in facts['model'].items())}",
        f"files        {facts['num_files']}, {facts['num_bytes']:,} bytes",
    ]


def checkpoint_facts(folder: Path) -> dict:
    """The same for a script."""
    manifest = read_manifest(folder)
    return {
        "checkpoint": str(folder),
        "state": manifest.state,
        "layout": manifest.layout,
        "model": manifest.config["model"],
        "num_files": len(manifest.files),
        "num_bytes": sum(record["bytes"] for record in manifest.files.values()),
    }
