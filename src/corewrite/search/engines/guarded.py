"""An engine that is not ours, in front of searches that wait: each call in time, none while it is down, no nonsense."""

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import numpy as np

from corewrite.remote import OutOfTimeError, Patience
from corewrite.remote.breaker import Breaker, BreakerOpenError
from corewrite.search.engines.port import (
    EngineError,
    EngineUnavailableError,
    Float32Array,
    FloatArray,
    IntArray,
    SearchEngine,
    TextEngine,
)

T = TypeVar("T")


class GuardedEngine:
    """An engine (a `SearchEngine`, as far as the one behind is one) whose every call ends in time.

    After failures in a row it is not asked for a while. All errors are `EngineError`, or `EngineUnavailableError` where there
    was no answer; an answer that is none (rows of no document, another shape) is an error too.

    Args:
        engine: What is asked.
        documents: How many there are.
        name: Of the engine, for messages.
        patience: Limits the time of a call.
        breaker: Opens after failures in a row.
    """

    def __init__(
        self, engine: SearchEngine | TextEngine, documents: int, name: str, *, patience: Patience, breaker: Breaker
    ) -> None:
        self._engine, self._documents, self._name = engine, documents, name
        self._patience, self._breaker = patience, breaker

    def search_text(self, texts: Sequence[str], k: int) -> IntArray:
        """See `TextEngine.search_text`."""
        return self._rows(lambda: self._engine.search_text(texts, k), len(texts), k)

    def search_vector(self, vectors: Float32Array, k: int) -> IntArray:
        """See `SearchEngine.search_vector`."""
        return self._rows(lambda: cast(SearchEngine, self._engine).search_vector(vectors, k), len(vectors), k)

    def score(self, vectors: Float32Array, rows: IntArray) -> FloatArray:
        """See `SearchEngine.score`."""
        return self._asked(lambda: cast(SearchEngine, self._engine).score(vectors, rows))

    def _rows(self, call: Callable[[], IntArray], num_texts: int, k: int) -> IntArray:
        def checked() -> IntArray:
            found = np.asarray(call())
            if found.ndim != 2 or len(found) != num_texts or found.shape[1] > max(k, 0) or found.dtype.kind not in "iu":
                raise EngineError(f"answered {found.dtype} {list(found.shape)} for {num_texts} texts, {k} documents each")
            if found.min(initial=0) < -1 or found.max(initial=-1) >= self._documents:
                raise EngineError(f"answered a row that is not among the {self._documents} documents")
            return found.astype(np.int64)

        return self._asked(checked)

    def _asked(self, call: Callable[[], T]) -> T:
        try:
            return self._breaker.call(lambda: self._patience.call(call), (Exception,))
        except (EngineError, EngineUnavailableError) as error:
            raise type(error)(f"{self._name}: {error}") from error
        except (OutOfTimeError, BreakerOpenError) as error:
            raise EngineUnavailableError(f"{self._name}: {error}") from error
        except Exception as error:
            # Whatever a client library, or a function of the user's own, raises over a broken server.
            raise EngineError(f"{self._name} failed: {type(error).__name__}: {str(error)[:200]}") from error
