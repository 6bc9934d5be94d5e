"""Settings files as versions before `corewrite.yaml` had one file for every command; to be removed after one release."""

import warnings
from pathlib import Path

import yaml

from corewrite.domain.shown import spelled
from corewrite.domain.strict_yaml import ConfigError

_OF_SERVE = (
    "host", "port", "workers", "drain_seconds", "api_key_env", "kill_file", "enabled", "shadow", "poll_seconds", "deadlines",
    "rewriter", "cache", "arms", "limits", "log", "relevance",
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
_RENAMED: dict[str, dict[str, str]] = {
    "training": {"samples": "num_generations", "clip": "max_grad_norm", "refresh_reference": "sync_ref_model"},
    "sampling": {"drift_limit": "log_prob_mismatch_limit"},
}
"""Settings of a section that have other names now."""
_STRING, _MAPPING = "tag:yaml.org,2002:str", "tag:yaml.org,2002:map"


class OldConfigWarning(FutureWarning):
    """A settings file of an earlier form, which the next release will not read; the message says what to write instead."""


def as_written_now(root: yaml.Node, name: str) -> yaml.Node:
    """The node tree of a settings file with everything where it belongs today; the nodes keep their lines.

    The weekly cycle had its sections under `pipeline`, training had `server`, and the HTTP server had a file of its own, with
    `registry` in the place of `run`.

    Args:
        root: Of the file as it is; not changed.
        name: Of the file, for messages.

    Warns:
        OldConfigWarning: something stands where it did in earlier versions.

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
            moved.append(("ramp", ("serve", "ramp"), key, value))
        elif isinstance(at, str) and at in _MOVED:
            moved.append((at, _MOVED[at], key, value))
        else:
            now.value.append((key, value))
    for _, to, key, value in moved:
        _put(now, to, key, value)
    renamed = _rename(now)
    if moved or renamed:
        lines = [
            f"line {key.start_mark.line + 1}: `{spelled(old)}` is `{spelled('.'.join(to))}` now"
            for old, to, key in [*((old, to, key) for old, to, key, _ in moved), *renamed]
        ]
        warnings.warn(
            f"{name} is written as for an earlier version, which the next one will not read; {'; '.join(lines)} "
            "(docs/cycle.md)",
            OldConfigWarning,
            stacklevel=2,
        )
    return now


def _rename(root: yaml.MappingNode) -> list[tuple[str, tuple[str, ...], yaml.Node]]:
    """Give settings of `root` their names of today, in sections of their own; old name, place and key of each."""
    found: list[tuple[str, tuple[str, ...], yaml.Node]] = []
    for at, (section, node) in enumerate(root.value):
        names = _RENAMED.get(getattr(section, "value", ""), {})
        if not names or not isinstance(node, yaml.MappingNode) or _is_plugin(node):
            continue
        settings = []
        for key, value in node.value:
            if (name := names.get(getattr(key, "value", ""))) is not None:
                found.append((f"{section.value}.{key.value}", (section.value, name), key))
                key = yaml.ScalarNode(_STRING, name, key.start_mark, key.end_mark)
            settings.append((key, value))
        root.value[at] = (section, yaml.MappingNode(node.tag, settings, node.start_mark, node.end_mark))
    return found


def _is_plugin(section: yaml.MappingNode) -> bool:
    """Whether an installed package reads the section: its settings have whatever names it gives them."""
    kind = next((v for k, v in section.value if getattr(k, "value", None) == "kind"), None)
    return kind is not None and getattr(kind, "value", None) != "server"


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
