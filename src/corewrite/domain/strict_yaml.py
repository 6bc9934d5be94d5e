"""Safe YAML less what has no place in settings or a fusion spec, with the line of everything in it."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from corewrite.domain.shown import spelled

Location = tuple[int | str, ...]
"""Keys and places in lists that lead to a value."""


class ConfigError(ValueError):
    """Settings that are refused; the message names the file, the line, the setting, the value and the fix."""


@dataclass(frozen=True)
class YamlDocument:
    """One parsed document.

    Attributes:
        name: Of the file, for messages.
        node: Root of the node tree, which knows the lines; None for an empty document.
        value: The same as plain Python values.
    """

    name: str
    node: yaml.Node | None
    value: object

    def line(self, location: Location) -> int:
        """Line of a place, counted from 1, or of the nearest place above it that is there."""
        return find_line(self.node, location)

    def path(self, location: Location, *, missing: bool = False) -> Location:
        """A place as it stands in the file: less the kind that pydantic puts between, of settings that come in several.

        Args:
            location: As pydantic tells it.
            missing: Whether its last name is one that the file lacks.
        """
        found: list[int | str] = []
        value: Any = self.value
        for place, key in enumerate(location):
            if missing and place == len(location) - 1:
                found.append(key)
                break
            if isinstance(value, dict) and key not in value:
                continue
            found.append(key)
            if isinstance(value, dict) or (isinstance(value, list) and isinstance(key, int)):
                value = value[key]  # type: ignore[index]
        return tuple(found)


def read_yaml(path: Path, what: str = "settings", rewrite: Callable[[yaml.Node], yaml.Node] | None = None) -> YamlDocument:
    """Read a file that holds one document.

    Args:
        path: The file.
        what: What it should hold, for messages.
        rewrite: See `parse_yaml`.

    Raises:
        ConfigError: it cannot be read, or is refused.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot read the {what}: {error}") from error
    return parse_yaml(text, str(path), what, rewrite)


def parse_yaml(
    text: str, name: str, what: str = "settings", rewrite: Callable[[yaml.Node], yaml.Node] | None = None
) -> YamlDocument:
    """Parse one document.

    Args:
        text: YAML.
        name: Of the file, for messages.
        what: What it should hold, for messages.
        rewrite: Changes the node tree before values are made of it; nodes keep their lines.

    Raises:
        ConfigError: it is no YAML, or holds an alias, a merge, a key twice, or a number beyond any use.
    """
    try:
        loader = StrictLoader(text)
        node = composed(loader)
        if node is not None and rewrite is not None:
            node = rewrite(node)
        return YamlDocument(name, node, loader.construct_document(node) if node is not None else None)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{name}:{line}: not valid YAML: {shown_key(str(error.problem))}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{name}:{line}: not valid YAML: character {error.character!r}: {error.reason}") from error
    except RecursionError:
        raise ConfigError(f"{name}:1: cannot read the {what}: nested too deeply") from None


class StrictLoader(yaml.SafeLoader):
    """Safe YAML less what has no place in a spec: aliases, merges, keys that stand twice, numbers beyond any use."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases."""
        if self.check_event(yaml.AliasEvent):
            # A few nested aliases or merge keys stand for gigabytes.
            alias = self.peek_event()  # type: ignore[no-untyped-call]
            raise _refused("aliases (*name) are not allowed here: write the value out", alias.start_mark)
        return super().compose_node(parent, index)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse merges, which bring a key a second time without a word; without aliases there is nothing to merge."""
        for key, _ in node.value:
            if key.tag == _MERGE:
                raise _refused("merges (<<) are not allowed here: write the values out", key.start_mark)
        super().flatten_mapping(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a key that stands twice, in the same words or others (`yes` and `true`, `1` and `0x1`)."""
        names: set[Hashable] = set()
        # A list that is tagged as a mapping (!!map [a]) comes here too; the base says what is wrong with it.
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                value = self.construct_object(key)
                if not isinstance(value, Hashable):
                    raise _refused(f"{key.value!r:.80} of type {key.tag} cannot be a key", key.start_mark)
                if not names.isdisjoint(both := {("written", key.value), value}):
                    raise _refused(f"key {key.value!r:.80} stands twice: drop one", key.start_mark)
                names |= both
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Refuse what is no value of its type, and huge numbers."""
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, ArithmeticError) as error:
            raise _refused(f"{node.value!r:.80} is not a value of type {node.tag}", node.start_mark) from error
        if isinstance(value, int) and value.bit_length() > 64:
            raise _refused(f"{node.value!r:.80} is too large a number", node.start_mark)
        return value


_MERGE = "tag:yaml.org,2002:merge"


def _refused(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def composed(loader: StrictLoader) -> yaml.Node | None:
    """The document's node tree; None for an empty document."""
    try:
        return loader.get_single_node()
    except (ValueError, OverflowError) as error:
        # The scanner lets through what Python says to an escape beyond Unicode, or to a version of thousands of digits.
        raise _refused(f"an escape or a number beyond any use ({error})", loader.get_mark()) from error  # type: ignore[no-untyped-call]


def shown_key(text: str) -> str:
    """A key as an error names it: it can hold line breaks, escape sequences, half characters, or a whole file."""
    return spelled(text if text.isprintable() and text == text.strip() and len(text) <= 200 else f"{text!r:.200}")


def find_line(node: yaml.Node | None, location: Location) -> int:
    """Line of a place in the YAML, or of the nearest place above it that is there."""
    line = 1
    for key in location:
        if isinstance(node, yaml.MappingNode):
            found = [(k, v) for k, v in node.value if getattr(k, "value", None) == str(key)]
            if not found:
                continue  # the kind that pydantic puts between, of settings that come in several
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            break
    return line
