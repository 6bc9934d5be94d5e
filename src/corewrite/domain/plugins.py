"""Code that is not ours, by name: `package.module:function`, or an entry point of an installed package."""

from collections.abc import Callable, Collection
from importlib import import_module
from importlib.metadata import entry_points
from typing import Annotated, Any

from pydantic import Field

SIGNALS, ENGINES = "corewrite.signals", "corewrite.engines"
CHECKS, COMPILERS = "corewrite.checks", "corewrite.compilers"
SAMPLERS, JUDGES = "corewrite.samplers", "corewrite.judges"
FILTERS = "corewrite.filters"
"""Groups of entry points."""
FactoryName = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
"""What `load_factory` takes, as settings write it."""


def load_factory(path: str) -> Callable[..., Any]:
    """The function called `package.module:function`.

    Raises:
        ValueError: it cannot be imported, or is not callable; the message says which.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name)
    except ImportError as error:
        raise ValueError(
            f"factory {path!r}: {module!r} cannot be imported ({error}): install it, or put it on PYTHONPATH"
        ) from error
    except AttributeError as error:
        raise ValueError(f"factory {path!r}: {module!r} has no {name!r}") from error
    if not callable(found):
        raise ValueError(f"factory {path!r} is a {type(found).__name__}, not a function")
    return found  # type: ignore[no-any-return]


def plugin_names(group: str, own: Collection[str] = ()) -> list[str]:
    """What installed packages registered, by name, sorted.

    Args:
        group: Of the entry points.
        own: Names that are taken by what `corewrite` brings itself.

    Raises:
        ValueError: a name is taken, by `corewrite` or by another package.
    """
    names: set[str] = set()
    for found in entry_points(group=group):
        if found.name in own or found.name in names:
            raise ValueError(
                f"the entry point {found.name!r} in {group!r} ({found.value}) has a name that is taken: rename it, or "
                "uninstall its package"
            )
        names.add(found.name)
    return sorted(names)


def known_kind(group: str, own: Collection[str], value: Any) -> Any:
    """Settings as they are, once their `kind` is known to be an installed package's: it may be a slip of the pen.

    Args:
        group: Of the entry points.
        own: Kinds that `corewrite` brings itself, for the message.
        value: The settings; what is no mapping with a kind is for others to refuse.

    Raises:
        ValueError: no installed package brings the kind.
    """
    kind = value.get("kind") if isinstance(value, dict) else None
    if isinstance(kind, str):
        there = sorted({e.name for e in entry_points(group=group)})
        if kind not in there:
            raise ValueError(
                f"kind {kind!r} is unknown: there are {', '.join((*own, *there))}; others come with a package that has an "
                f"entry point {group!r}"
            )
    return value


def load_plugin(group: str, kind: str) -> Callable[..., Any]:
    """What an installed package registered under a name.

    Args:
        group: Of the entry points.
        kind: The name.

    Raises:
        ValueError: no installed package brings it, or it cannot be imported.
    """
    names = plugin_names(group)
    if kind not in names:
        raise ValueError(
            f"no installed package has an entry point {kind!r} in {group!r}: there are {', '.join(names) or 'none'}"
        )
    found = entry_points(group=group)[kind]
    try:
        made = found.load()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"entry point {kind!r} in {group!r} ({found.value}) cannot be imported: {error}") from error
    return made  # type: ignore[no-any-return]
