"""`corewrite warm`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from corewrite.cli.common import print_json, progress_console, reported_errors, say
from corewrite.cli.serve_settings import CONFIG_OPTION, RUN_OPTION, read_serve_settings

if TYPE_CHECKING:
    from corewrite.serving.settings import ServeConfig

WARM_EXAMPLES = (
    "Examples: `corewrite warm --from-log runs/demo/log --top 10000 --policy 3fa9c1 --config corewrite.yaml` · "
    "`corewrite warm --from-log week.ndjson.gz --top 1000 --run runs/demo`"
)


def warm(
    from_log: list[Path] = typer.Option(help="UBI log with texts: a file, or a folder of them. Repeatable."),
    top: int = typer.Option(10_000, min=1, help="Queries, with their contexts, at most."),
    policy: str | None = typer.Option(None, help="Hash of the policy to be promoted, or its start; default: the champion's."),
    run: Path | None = RUN_OPTION,
    config: Path | None = CONFIG_OPTION,
    as_json: bool = typer.Option(False, "--json", help="Print what was done as JSON."),
) -> None:
    """Rewrite the head queries of a log with a policy before it is promoted: the cache is warm when it takes over."""
    import asyncio

    with reported_errors():
        from corewrite.domain.extras import require_extras

        require_extras("serve")
        from corewrite.logs.files import log_files
        from corewrite.registry import Registry
        from corewrite.report.progress import ProgressSteps
        from corewrite.rewriter import MAX_NEW_TOKENS, load_rewriter
        from corewrite.serving.warm import head_queries, write_warm
        from corewrite.serving.warm import warm as rewrites_of

        settings = read_serve_settings(run, config)
        cache = settings.cache
        if cache.redis_url is None and cache.warm_folder is None:
            raise ValueError("nothing to fill: set cache.redis_url or cache.warm_folder in the settings")
        registry = Registry(settings.registry)
        champion = registry.champion()
        if policy is None and champion is None:
            raise ValueError(f"{settings.registry} has no champion: name the policy with --policy")
        artifact = registry.find(policy or champion.policy, "policy")  # type: ignore[union-attr]  # one of the two is there
        registry.verify("policy", artifact.hash)
        steps = ProgressSteps(progress_console(quiet=as_json))
        with steps.step("read the log"):
            queries = head_queries([file for path in from_log for file in log_files(path)], top)
        with steps.step("rewrite") as progress:
            found = rewrites_of(
                load_rewriter(registry.path(artifact)),
                artifact.hash,
                queries,
                max_new_tokens=settings.rewriter.max_new_tokens or MAX_NEW_TOKENS,
                progress=progress,
            )
        done: dict[str, Any] = {"policy": artifact.hash, "queries": len(queries), "rewrites": len(found)}
        if cache.warm_folder is not None:
            done["file"] = str(write_warm(cache.warm_folder, artifact.hash, found))
        if cache.redis_url is not None:
            failures = asyncio.run(_into_redis(settings, found))
            done["redis_failures"] = failures
            if failures:
                raise ValueError(f"{failures} writes to the Redis failed: is it up?")
    if as_json:
        print_json(done)
    else:
        say(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in done.items()))


async def _into_redis(settings: "ServeConfig", found: dict[str, tuple[str, ...]]) -> int:
    from corewrite.serving.cache import open_redis

    shared = open_redis(settings.cache, timeout_ms=5_000)
    assert shared is not None
    await shared.put_many(list(found.items()))
    await shared.close()
    return shared.failures
