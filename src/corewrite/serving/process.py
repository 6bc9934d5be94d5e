"""The server's end of a rewriter's process."""

import asyncio
import atexit
import gc
import json
import multiprocessing
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corewrite.domain import Query, query_to_json
from corewrite.rewriter import TemplateConfig
from corewrite.serving.settings import RewriterSettings

_LINE_LIMIT = 2**20
_LIVE: set[Any] = set()


class WorkerError(RuntimeError):
    """The rewriter's process did not load its policy, died, or spoke out of turn."""


class PolicyProcess:
    """A process that rewrites with one policy.

    `start`, then any number of `ask`, one at a time, then `kill`. After an exception only `kill` is left.

    Attributes:
        template: The policy's prompt template.
    """

    def __init__(
        self, process: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, template: TemplateConfig
    ) -> None:
        self._process, self._reader, self._writer = process, reader, writer
        self.template = template
        self._asked = 0

    @property
    def pid(self) -> int:
        """Process id."""
        return int(self._process.pid)

    @classmethod
    async def start(cls, folder: Path, settings: RewriterSettings) -> "PolicyProcess":
        """Start a process and load the policy of `folder`.

        Raises:
            WorkerError: the policy cannot be loaded, or not in time.
        """
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["corewrite.serving.worker"])
        ours, theirs = socket.socketpair()
        with theirs:
            process = context.Process(target=_work, args=(theirs, folder, settings.max_new_tokens, settings.threads))
            process.daemon = True
            try:
                # The first start waits for the imports of the process that all are cloned from.
                await asyncio.to_thread(process.start)
            except (OSError, EOFError) as error:
                ours.close()
                raise WorkerError(f"the rewriter's process did not start: {error}") from error
        _LIVE.add(process)
        reader, writer = await asyncio.open_connection(sock=ours, limit=_LINE_LIMIT)
        try:
            async with asyncio.timeout(settings.load_seconds):
                template = await _greeting(reader, folder)
        except BaseException as error:
            _end(process, writer)
            if isinstance(error, TimeoutError):
                raise WorkerError(f"{folder} was not loaded within {settings.load_seconds:g} s") from error
            raise
        return cls(process, reader, writer, template)

    async def ask(self, queries: Sequence[Query], n: int) -> list[Any]:
        """What the process says to a batch, one value per query, not to be trusted.

        Raises:
            WorkerError: it died, or said something that is no answer to this batch.
        """
        self._asked += 1
        asked = [query_to_json(q) for q in queries]
        try:
            self._writer.write(json.dumps({"id": self._asked, "n": n, "queries": asked}).encode() + b"\n")
            await self._writer.drain()
        except OSError as error:
            raise WorkerError(f"the rewriter's process is gone: {error}") from error
        said = await _line(self._reader)
        answers = said.get("rewrites")
        if said.get("id") != self._asked or not isinstance(answers, list) or len(answers) != len(queries):
            raise WorkerError("the rewriter's process answered something else than it was asked")
        return answers

    def kill(self) -> None:
        """End it at once."""
        _end(self._process, self._writer)


def _work(connection: socket.socket, folder: Path, max_new_tokens: int | None, threads: int) -> None:
    # Imported there, not here: the server itself has no use for a language model.
    from corewrite.serving.worker import work

    # As in the server: its modules stay, and a full collection that walks through them holds a batch up for a quarter second.
    gc.freeze()
    work(connection, folder, max_new_tokens, threads)


async def _greeting(reader: asyncio.StreamReader, folder: Path) -> TemplateConfig:
    said = await _line(reader)
    try:
        return TemplateConfig.from_json(said["ready"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        failed = said.get("failed")
        reason = failed[:500] if isinstance(failed, str) else "the process said nothing of use"
        # It will stand in an answer of /readyz, where half characters (of a file's name, say) would be an error of their own.
        raise WorkerError(f"{folder}: {reason}".encode("utf-8", "replace").decode()) from error


async def _line(reader: asyncio.StreamReader) -> dict[str, Any]:
    try:
        line = await reader.readline()
        said = json.loads(line) if line else None
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no JSON, or a line without end
        raise WorkerError(f"the rewriter's process said something unreadable: {type(error).__name__}") from error
    if said is None:
        raise WorkerError("the rewriter's process died")
    if not isinstance(said, dict):
        raise WorkerError("the rewriter's process said something that is no answer")
    return said


def _end(process: Any, writer: asyncio.StreamWriter) -> None:
    writer.close()
    process.kill()
    _LIVE.discard(process)


@atexit.register
def _end_all() -> None:
    """Before `multiprocessing` waits for them: SIGTERM, which it would send, is nothing to them."""
    for process in _LIVE:
        process.kill()
