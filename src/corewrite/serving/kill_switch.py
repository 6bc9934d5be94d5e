"""The kill switch: a file, so that all workers, the next start and a person with a shell agree on it."""

import logging
from contextlib import suppress
from pathlib import Path

_log = logging.getLogger(__name__)


class KillSwitch:
    """On while its file exists.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, enabled: bool = True) -> None:
        """Watch `path`; `enabled` False: always on."""
        self.path = path
        self._enabled, self._file, self._here = enabled, path.exists(), False

    @property
    def on(self) -> bool:
        """Whether rewrites are switched off; as of the last `look`, or of what was done here since."""
        return not self._enabled or self._file or self._here

    def look(self) -> None:
        """See whether the file is there; where that cannot be read, the switch stays as it was."""
        with suppress(OSError):
            self._file = self.path.exists()

    def kill(self) -> bool:
        """Switch off; False: here only, since the file cannot be written."""
        self.look()
        if self._file:
            return True
        try:
            self.path.touch()
        except OSError as error:
            self._here = True
            _log.error("the kill file %s cannot be written (%s): rewrites are off in this worker alone", self.path, error)
            return False
        self._file = True
        return True

    def resume(self) -> bool:
        """Switch on again; False: the file cannot be removed, so it stays off."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            self.look()
            if self._file:
                _log.error("the kill file %s cannot be removed (%s): rewrites stay off", self.path, error)
                return False
        self._file = self._here = False
        return True
