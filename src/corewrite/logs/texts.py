"""Whether the texts of a log can be read: hashes teach nothing, nor distinguish a reformulation from a new query."""

from dataclasses import replace

from corewrite.logs.files import LogError
from corewrite.logs.tables import SearchLog


def require_texts(log: SearchLog) -> SearchLog:
    """The searches of a log whose texts can be read.

    Args:
        log: As read. Searches whose line does not say how its texts stand there were not written by `corewrite serve` and
            hold them as they are.

    Returns:
        The log without searches whose texts are hashed or sealed; its report warns of those.

    Raises:
        LogError: they are half of the log or more.
    """
    searches = log.searches
    unreadable = searches.texts.isin(["hashed", "sealed"]).fill_null(False)
    count = int(searches.filter(unreadable).count().execute())
    if 2 * count >= log.report.queries:
        sealed = int(searches.filter((searches.texts == "sealed").fill_null(False)).count().execute())
        what, fix = (
            ("sealed texts that nobody opened", "name the folder of the private keys, `privacy.keys`")
            if 2 * sealed > count
            else ("hashes in the place of texts", "serve with `log.query_text: true` or `log.seal_to`")
        )
        raise LogError(
            f"{', '.join(log.report.files)}: {count} of {log.report.queries} searches hold {what}, from which nothing can be "
            f"learnt, nor a reformulation be distinguished from a new query: {fix}"
        )
    return replace(log, searches=searches.filter(~unreadable)) if count else log
