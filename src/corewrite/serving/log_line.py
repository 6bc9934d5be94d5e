"""The log line of a search, as UBI 1.3.0: what was served, with hashes, seals or nothing in the place of texts."""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from corewrite.logs.sealing import Sealer
from corewrite.logs.served import Answer, Attributes, LogPlace, Pair, ServedLine, ServedSearch, ShadowAnswer, Texts
from corewrite.logs.times import iso
from corewrite.logs.writer import APPLICATION
from corewrite.serving.search_result import SearchResult


class Hasher:
    """Keyed hashes in the place of names and texts."""

    def __init__(self, secret: str | None) -> None:
        """Hash under `secret`; None: under a constant that everybody knows."""
        self._key = (secret or "corewrite").encode()

    def __call__(self, text: str) -> str:
        """A hash of `text`, 32 hexadecimal digits."""
        return hmac.new(self._key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]


@dataclass(frozen=True)
class Compared:
    """What a comparison came to.

    Attributes:
        pair: What was compared, control first.
        lists: Catalogue rows of both sides, best first; None where one cannot be known.
    """

    pair: Pair
    lists: tuple[tuple[int, ...], tuple[int, ...]] | None


def build_line(
    found: SearchResult,
    *,
    query_id: str,
    client_id: str,
    bucket: int,
    session_id: str,
    timestamp: float,
    ids: Callable[[int], str],
    compared: Compared | None,
    shadow: SearchResult | None,
    backends: Mapping[str, JsonValue],
    texts: Texts,
    hasher: Hasher,
    place: LogPlace,
    sealer: Sealer | None = None,
) -> ServedLine:
    """The line of a search.

    Args:
        found: The search.
        query_id: Of this search.
        client_id: Of the user; only its hash is written.
        bucket: Of the user; see `corewrite.domain.traffic_split`.
        session_id: Only its hash is written.
        timestamp: Seconds since the epoch.
        ids: Document id by catalogue row.
        compared: What a comparison came to, where one was made.
        shadow: The champion's answer in the shadow stage, where it was computed.
        backends: What scored and recalled: `Ranker.facts`.
        texts: Whether the user's texts are written, their hashes, or sealed.
        hasher: Makes the hashes.
        place: Of the line in the log.
        sealer: Seals texts; needed where `texts` says so.
    """

    def shown(field: str, text: str) -> str:
        if texts == "plain":
            return text
        return hasher(text) if sealer is None else sealer.seal(query_id, field, text)

    def all_shown(field: str, several: Iterable[str]) -> tuple[str, ...]:
        return tuple(shown(f"{field}.{i}", text) for i, text in enumerate(several))

    ranked, context = found.ranked, found.query.context
    names = sorted({name for factors in ranked.factors for name in factors})
    lists = compared.lists if compared is not None else None
    served = ServedSearch(
        **dict(_answer(found, all_shown("rewrites", found.texts))),
        texts=texts,
        context_queries=all_shown("context_queries", context.queries),
        ramp=found.rollout,
        backends=dict(backends),
        factors={name: tuple(f.get(name, 1.0) for f in ranked.factors) for name in names},
        scores=ranked.scores,
        pair=None if compared is None else compared.pair,
        lists=None if lists is None else (_named(lists[0], ids), _named(lists[1], ids)),
        shadow=None
        if shadow is None
        else ShadowAnswer(
            **dict(_answer(shadow, all_shown("shadow.rewrites", shadow.texts))), hit_ids=_named(shadow.ranked.rows, ids)
        ),
        log=place,
    )
    return ServedLine(
        application=APPLICATION,
        query_id=query_id,
        client_id=hasher(client_id),
        user_query=shown("user_query", found.query.text),
        timestamp=iso(timestamp),
        query_response_id=query_id,
        query_response_hit_ids=_named(ranked.rows, ids),
        query_attributes=Attributes(
            session_id=hasher(session_id) if session_id else "",
            context_titles=all_shown("context_titles", context.titles),
            locale=context.locale,
            arm=found.arm,
            bucket=bucket,
            impacted=None if lists is None else lists[0] != lists[1],
            served=served,
        ),
    )


def _named(rows: tuple[int, ...], ids: Callable[[int], str]) -> tuple[str, ...]:
    return tuple(ids(row) for row in rows)


def _answer(found: SearchResult, rewrites: tuple[str, ...]) -> Answer:
    """The version that answered, and the outcome of the rewrite."""
    champion = found.version.champion
    return Answer(
        version=champion.version,
        policy=champion.policy,
        relevance=champion.relevance,
        spec=champion.spec,
        spec_hash=found.version.spec_hash,
        signal_status={name: str(state) for name, state in found.ranked.status.items()},
        rewrite=found.reason,
        rewrites=rewrites,
        used_at=found.used_at,
    )
