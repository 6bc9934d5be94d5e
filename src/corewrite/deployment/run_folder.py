"""What a run folder says of what lies outside it."""

import json
from pathlib import Path

from corewrite.domain import ConfigError
from corewrite.domain.shown import spelled
from corewrite.storage.durable import make_folder, whole_file

_SHOWN = 300
_COPY, _NOTE = "documents.parquet", "documents.json"


def note_documents(run: Path, documents: Path) -> None:
    """Write down which documents a run is about, for commands that are given the run folder alone."""
    text = json.dumps({"documents": str(documents.absolute())}) + "\n"
    note = run / _NOTE
    if note.is_file() and note.read_text("utf-8") == text:
        return
    make_folder(run)
    with whole_file(note) as temporary:
        temporary.write_text(text, "utf-8")


def documents_of_run(run: Path) -> Path:
    """The documents of a run folder: its own copy, or where its cycle found them.

    Raises:
        ConfigError: it says neither.
    """
    note = run / _NOTE
    try:
        if (run / _COPY).exists():
            return run / _COPY
        return Path(json.loads(note.read_text("utf-8"))["documents"])
    except FileNotFoundError:
        raise ConfigError(
            f"{spelled(str(run))} neither holds {_COPY} nor says where its documents are: name them in the settings "
            "(--config), or run its cycle once more"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        where, why = spelled(str(note))[:_SHOWN], spelled(getattr(error, "strerror", None) or str(error))[:_SHOWN]
        raise ConfigError(f"{where} cannot be read ({why}): remove it, and run the cycle once more") from error
