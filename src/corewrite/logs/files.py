"""Where the lines of a log lie."""

from pathlib import Path


def log_files(path: Path) -> list[Path]:
    """A log's files: the file itself, or the NDJSON files of a folder, by name."""
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.name.endswith((".ndjson", ".ndjson.gz")))
    return [path]
