"""What a run folder says of what lies outside it."""

import json
from pathlib import Path

from corewrite.domain import ConfigError
from corewrite.domain.shown import spelled
from corewrite.storage.durable import make_folder, whole_file
from corewrite.storage.run_layout import RunLayout

_SHOWN = 300


def note_documents(run: Path, documents: Path) -> None:
    """Write down which documents a run is about, for commands that are given the run folder alone."""
    text = json.dumps({"documents": str(documents.absolute())}) + "\n"
    note = RunLayout(run).documents_note
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
    copy, note = RunLayout(run).documents_copy, RunLayout(run).documents_note
    try:
        if copy.exists():
            return copy
        return Path(json.loads(note.read_text("utf-8"))["documents"])
    except FileNotFoundError:
        raise ConfigError(
            f"{spelled(str(run))} neither holds {copy.name} nor says where its documents are: name them in the settings "
            "(--config), or run its cycle once more"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        where, why = spelled(str(run))[:_SHOWN], spelled(getattr(error, "strerror", None) or str(error))[:_SHOWN]
        raise ConfigError(
            f"{note.name} of the run folder {where} cannot be read ({why}): remove it, and run the cycle once more, or name "
            "another run"
        ) from error
