"""Settings files as versions before `corewrite.yaml` had one file for every command; to be removed after one release."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import yaml

from corewrite.domain.shown import spelled
from corewrite.domain.strict_yaml import ConfigError

_OF_SERVE = (
    "host", "port", "workers", "drain_seconds", "api_key_env", "kill_file", "enabled", "shadow", "poll_seconds", "deadlines",
    "cache", "arms", "limits", "log", "relevance",
)  # fmt: skip
_MOVED: dict[str, tuple[str, ...]] = {
    "spec": ("ranker", "spec"),
    "engine": ("ranker", "recall"),
    "server": ("sampling",),
    "gate_queries": ("evaluation", "gate_queries"),
    "watched_queries": ("evaluation", "watched_queries"),
    "probe_instances": ("evaluation", "probe_instances"),
    "frozen_queries": ("evaluation", "frozen_queries"),
    **{name: ("serve", name) for name in _OF_SERVE},
}
_RENAMED: dict[tuple[str, ...], str] = {
    ("ramp",): "rollout",
    ("serve", "ramp"): "rollout",
    ("gate", "margins", "commonest_rewrite"): "top_rewrite_share",
    ("serve", "arms", "launch_1"): "finerank_only",
    ("serve", "arms", "launch_2"): "all_stages",
    ("training", "samples"): "num_generations",
    ("training", "clip"): "max_grad_norm",
    ("training", "refresh_reference"): "sync_ref_model",
    ("sampling", "drift_limit"): "log_prob_mismatch_limit",
}
"""Keys that were renamed in place: by the place, everything above it under its name of today, the name of today."""
_ARMS = {"launch_1": "finerank_only", "launch_2": "all_stages"}
_RENAMED_VALUES: dict[tuple[str, ...], dict[str, str]] = {
    ("gate", "required_checks"): {"canaries": "prompt_injection", "commonest_rewrite": "top_rewrite_share"},
    ("serve", "log", "pair"): _ARMS,
}
"""Names that stand as values, or in a list of values, under the key at a place."""
_OF_SERVED_REWRITER = frozenset({
    "max_batch", "max_wait_ms", "queue", "stale_ms", "hang_seconds", "probe_seconds", "load_seconds", "max_new_tokens",
    "threads", "blocklist",
})  # fmt: skip
"""Keys that the section `rewriter` of the server's own file had; today's section of that name has none of them."""
_STRING, _MAPPING = "tag:yaml.org,2002:str", "tag:yaml.org,2002:map"


class OldConfigWarning(FutureWarning):
    """A settings file of an earlier form, which the next release will not read; the message says what to write instead."""


def as_written_now(root: yaml.Node, name: str) -> yaml.Node:
    """The node tree of a settings file with everything where it belongs today, under its name of today; nodes keep their lines.

    The weekly cycle had its sections under `pipeline`, training had `server`, and the HTTP server had a file of its own, with
    `registry` in the place of `run`. Later versions renamed keys in place.

    Args:
        root: Of the file as it is; not changed.
        name: Of the file, for messages.

    Warns:
        OldConfigWarning: something stands where it did in earlier versions, or under an earlier name.

    Raises:
        ConfigError: `registry` is no folder of that name, so that it cannot be said as `run`.
    """
    if not isinstance(root, yaml.MappingNode):
        return root
    now = yaml.MappingNode(_MAPPING, [], root.start_mark, root.end_mark)
    moved = []
    for key, value in root.value:
        at = getattr(key, "value", None)
        if at == "pipeline" and isinstance(value, yaml.MappingNode):
            moved += [(f"pipeline.{k.value}", _MOVED.get(str(k.value), (str(k.value),)), k, v) for k, v in value.value]
        elif at == "registry":
            moved.append(("registry", ("run",), key, _build_run(value, name)))
        elif at == "ramp" and isinstance(value, yaml.ScalarNode):  # the server's file, no section
            moved.append(("ramp", ("serve", "rollout"), key, value))
        elif at == "rewriter":
            of_server, own = _split_rewriter(value)
            moved += [(f"rewriter.{k.value}", ("serve", "rewriter", str(k.value)), k, v) for k, v in of_server]
            if own is not None:
                now.value.append((key, own))
        elif isinstance(at, str) and at in _MOVED:
            moved.append((at, _MOVED[at], key, value))
        else:
            now.value.append((key, value))
    for _, to, key, value in moved:
        _put(now, to, key, value)
    changes = [(key, old, ".".join(to)) for old, to, key, _ in moved]
    changes += _rename(now, ())
    if changes:
        lines = [f"line {key.start_mark.line + 1}: `{spelled(old)}` is `{spelled(to)}` now" for key, old, to in changes]
        warnings.warn(
            f"{name} is written as for an earlier version, which the next one will not read; {'; '.join(lines)} "
            "(docs/concepts/weekly-cycle.md)",
            OldConfigWarning,
            stacklevel=2,
        )
    return now


def _split_rewriter(section: yaml.Node) -> tuple[list[tuple[yaml.Node, yaml.Node]], yaml.Node | None]:
    """What of a section `rewriter` was the server's, and today's section; None where nothing is left for it.

    A name that neither knows stays in today's, which every command refuses: a filter that is misspelt must not be passed over.
    """
    if not isinstance(section, yaml.MappingNode):
        return [], section
    of_server = [(k, v) for k, v in section.value if getattr(k, "value", None) in _OF_SERVED_REWRITER]
    own = [(k, v) for k, v in section.value if getattr(k, "value", None) not in _OF_SERVED_REWRITER]
    if of_server and not own:
        return of_server, None
    return of_server, yaml.MappingNode(_MAPPING, own, section.start_mark, section.end_mark)


def _rename(node: yaml.MappingNode, place: tuple[str, ...]) -> list[tuple[yaml.Node, str, str]]:
    """Give keys that were renamed in place their names of today.

    A key that stands under both names stands twice then, which the reader refuses.

    Args:
        node: A mapping; changed.
        place: The keys that lead to it.

    Returns:
        Of each key that was renamed its node, its place in the file and its place today.
    """
    changes: list[tuple[yaml.Node, str, str]] = []
    for number, (key, value) in enumerate(node.value):
        if not isinstance(key, yaml.ScalarNode):
            continue
        at = (*place, str(key.value))
        if (name := _RENAMED.get(at)) is not None:
            now = (*place, name)
            changes.append((key, ".".join(at), ".".join(now)))
            key, at = yaml.ScalarNode(_STRING, name, key.start_mark, key.end_mark), now
        if (values := _RENAMED_VALUES.get(at)) is not None:
            value, renamed = _rename_values(value, values)
            changes += [(old, f"{'.'.join(at)}: {old.value}", name) for old, name in renamed]
        below = any(other[: len(at)] == at for other in (*_RENAMED, *_RENAMED_VALUES))
        if below and isinstance(value, yaml.MappingNode) and not _is_plugin(at, value):
            value = yaml.MappingNode(value.tag, list(value.value), value.start_mark, value.end_mark)
            changes += _rename(value, at)
        node.value[number] = (key, value)
    return changes


def _is_plugin(place: tuple[str, ...], section: yaml.MappingNode) -> bool:
    """Whether an installed package reads a section: its settings have whatever names it gives them."""
    kind = next((v for k, v in section.value if getattr(k, "value", None) == "kind"), None)
    return place == ("sampling",) and kind is not None and getattr(kind, "value", None) != "server"


def _rename_values(node: yaml.Node, names: Mapping[str, str]) -> tuple[yaml.Node, list[tuple[yaml.ScalarNode, str]]]:
    """A name, or a list of names, with those of today; and each that was renamed, with its name of today."""
    if isinstance(node, yaml.SequenceNode):
        found = [_rename_values(inner, names) for inner in node.value]
        renamed = [change for _, changes in found for change in changes]
        return yaml.SequenceNode(node.tag, [inner for inner, _ in found], node.start_mark, node.end_mark), renamed
    if not isinstance(node, yaml.ScalarNode) or node.value not in names:
        return node, []
    name = names[node.value]
    return yaml.ScalarNode(_STRING, name, node.start_mark, node.end_mark), [(node, name)]


def _put(root: yaml.MappingNode, to: tuple[str, ...], key: yaml.Node, value: yaml.Node) -> None:
    """Put a value at a place; one that is taken stands twice then, which the reader refuses."""
    node = root
    for section in to[:-1]:
        below = next((v for k, v in node.value if getattr(k, "value", None) == section), None)
        if below is None:
            below = yaml.MappingNode(_MAPPING, [], key.start_mark, key.end_mark)
            node.value.append((yaml.ScalarNode(_STRING, section, key.start_mark, key.end_mark), below))
        if not isinstance(below, yaml.MappingNode):
            return  # `section: 3`, which will be refused
        node = below
    node.value.append((yaml.ScalarNode(_STRING, to[-1], key.start_mark, key.end_mark), value))


def _build_run(value: yaml.Node, name: str) -> yaml.Node:
    path = Path(value.value) if isinstance(value, yaml.ScalarNode) else None
    if path is None or path.name != "registry":
        raise ConfigError(
            f"{name}:{value.start_mark.line + 1}: registry: write `run: FOLDER` (the folder with `registry` in it)"
        )
    return yaml.ScalarNode(_STRING, str(path.parent), value.start_mark, value.end_mark)
