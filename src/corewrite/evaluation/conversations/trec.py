"""TREC files of a measurement: qrels and a run file for each ranker, system and mode."""

import json
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from corewrite.evaluation.conversations.measure import Measured, ScoredTurns
from corewrite.evaluation.conversations.ranker import best_rows, tie_order
from corewrite.evaluation.conversations.records import ConversationSet
from corewrite.storage.durable import make_folder, make_private, whole_file

QRELS = "qrels.txt"


class TrecWriter:
    """Writes `RANKER.SYSTEM.MODE.run` files as scores come, and `qrels.txt`; each is there whole once the block is left.

    Args:
        folder: Made where it is not there; files of these names are replaced.
        data: The turns.
        depth: Passages of a turn in a run file at most.
    """

    def __init__(self, folder: Path, data: ConversationSet, depth: int) -> None:
        self._folder, self._data, self._depth = folder, data, depth
        self._ties = tie_order([p.id for p in data.passages])
        self._stack = ExitStack()
        self._files: dict[Measured, IO[str]] = {}

    def __enter__(self) -> Self:
        make_folder(self._folder.absolute())
        with self._open(QRELS) as file:
            file.writelines(f"{t.id} 0 {t.passage} 1\n" for t in self._data.turns)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return self._stack.__exit__(kind, error, traceback)

    def add(self, scored: ScoredTurns) -> None:
        """Write the first passages of some turns."""
        about = scored.about
        if about not in self._files:
            self._files[about] = self._open(f"{about.ranker}.{about.system}.{about.mode}.run")
        tag = f"{about.ranker}.{about.system}.{about.mode}"
        for i, scores in enumerate(scored.scores, scored.first):
            turn = self._data.turns[i].id
            for rank, row in enumerate(best_rows(scores, self._ties, self._depth).tolist(), 1):
                self._files[about].write(f"{turn} Q0 {self._data.passages[row].id} {rank} {float(scores[row])!r} {tag}\n")

    def _open(self, name: str) -> IO[str]:
        temporary = self._stack.enter_context(whole_file(self._folder / name))
        # For its owner alone: ids and texts may be of people's conversations.
        return self._stack.enter_context(make_private(temporary).open("w", encoding="utf-8"))


def write_rewrites(folder: Path, data: ConversationSet, rewrites: dict[str, list[str]]) -> None:
    """Write `rewrites.jsonl`, the text of every turn by each system."""
    with whole_file(folder / "rewrites.jsonl") as temporary, make_private(temporary).open("w", encoding="utf-8") as file:
        for i, turn in enumerate(data.turns):
            said = {name: texts[i] for name, texts in rewrites.items()}
            file.write(json.dumps({"turn": turn.id, "query": turn.query, **said}) + "\n")
