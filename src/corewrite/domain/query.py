"""What the user typed and what was known before it."""

from dataclasses import dataclass, field

from corewrite.domain.hashing import sha256_json


@dataclass(frozen=True)
class Context:
    """What the session held *before* the query: it ends where the query begins.

    Attributes:
        queries: Earlier queries of the session, oldest first.
        titles: Titles watched or clicked before the query, oldest first.
        locale: BCP-47 language tag, empty where unknown.
    """

    queries: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    locale: str = ""


@dataclass(frozen=True)
class Query:
    """A query with its context: all a rewriter may see.

    Attributes:
        text: The query as typed.
        context: What came before.
    """

    text: str
    context: Context = field(default_factory=Context)

    @property
    def key(self) -> str:
        """Hash over text and context: equal queries in equal contexts share it."""
        c = self.context
        return sha256_json([self.text, c.queries, c.titles, c.locale])
