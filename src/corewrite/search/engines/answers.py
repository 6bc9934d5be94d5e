"""What a client of a search engine says of a broken server, as the two errors of the port."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from corewrite.domain.shown import spelled
from corewrite.search.engines.port import EngineError, EngineUnavailableError

_SHOWN = 300


@contextmanager
def answered(what: str, no_answer: Callable[[Exception], bool]) -> Iterator[None]:
    """A request and the reading of its answer, whose every failure is one sentence.

    Args:
        what: What was asked of what, for messages.
        no_answer: Whether an error of the client means that there was no answer.

    Raises:
        EngineUnavailableError: there was none, or not in time.
        EngineError: the server refused, or its answer is none that can be read.
    """
    try:
        yield
    except (EngineError, EngineUnavailableError) as error:
        raise type(error)(_sentence(str(error))) from error
    except Exception as error:  # a client, and what reads an answer, may raise anything over a server that lies
        said = _sentence(f"{type(error).__name__}: {error}")
        if no_answer(error):
            raise EngineUnavailableError(f"{what} got no answer: {said}") from error
        status = getattr(error, "status_code", None)
        if isinstance(status, int):  # with it a server may repeat what it was asked, and so what users typed
            said = f"{type(error).__name__}, status {status}"
        raise EngineError(f"{what} failed: {said}") from error


def _sentence(text: str) -> str:
    """A message on one line, of a length to be read, whatever a server put into it."""
    return spelled(" ".join(text.split()))[:_SHOWN]
