"""Safe YAML less what has no place in settings or a fusion spec."""

from collections.abc import Hashable
from typing import Any

import yaml


class StrictLoader(yaml.SafeLoader):
    """Safe YAML less what has no place in a spec: aliases, keys that stand twice, numbers beyond any use."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases."""
        if self.check_event(yaml.AliasEvent):
            # A few nested aliases or merge keys stand for gigabytes.
            alias = self.peek_event()  # type: ignore[no-untyped-call]
            raise _refused("aliases (*name) are not allowed here: write the value out", alias.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a key that stands twice."""
        names: set[str] = set()
        # A list that is tagged as a mapping (!!map [a]) comes here too; the base says what is wrong with it.
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    raise _refused(f"key {key.value!r:.80} stands twice: drop one", key.start_mark)
                names.add(key.value)
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


def _refused(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def composed(loader: StrictLoader) -> yaml.Node | None:
    """The document's node tree; None for an empty document."""
    try:
        return loader.get_single_node()
    except (ValueError, OverflowError) as error:
        # The scanner lets through what Python says to an escape beyond Unicode, or to a version of thousands of digits.
        raise _refused(f"an escape or a number beyond any use ({error})", loader.get_mark()) from error  # type: ignore[no-untyped-call]


def visible(text: str) -> str:
    """Text that a terminal may be given: a key can hold line breaks, escape sequences, half characters, or a whole file."""
    return text if text.isprintable() and text == text.strip() and len(text) <= 200 else f"{text!r:.200}"


def line_of(node: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """Line of a place in the YAML, or of the nearest place above it that is there."""
    line = 1
    for key in location:
        if isinstance(node, yaml.MappingNode):
            found = [(k, v) for k, v in node.value if getattr(k, "value", None) == str(key)]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            break
    return line
