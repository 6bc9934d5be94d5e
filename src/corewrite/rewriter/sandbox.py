"""Rendering Jinja of a model or a team: in jinja2's sandbox, without other files, of limited size and number of steps."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

LONGEST_OUTPUT = 262_144
"""Characters that a template may give at most."""
MOST_STEPS = 50_000
"""Rounds of all its loops and calls of its macros together."""
_LARGEST_POWER = 64


class TemplateRenderError(ValueError):
    """A template that cannot be read, fails, or gives too much."""


def compile_template(source: str, name: str, *, strict: bool) -> Callable[[Mapping[str, Any]], str]:
    """A function that renders a template.

    The environment is that in which transformers renders chat templates (blocks trimmed, `raise_exception`, `tojson`, `break`,
    `{% generation %}`), but for the date: what a prompt says must not depend on the day, so `strftime_now` is not defined.

    Args:
        source: Jinja.
        name: What it is, for messages.
        strict: Whether a name that is not defined is an error; chat templates of models ask whether many are.

    Raises:
        TemplateRenderError: no Jinja, or it reads other templates.
    """
    environment = _Sandbox(strict)
    try:
        template = environment.counted(source)
    except (TemplateError, RecursionError) as error:
        raise TemplateRenderError(f"{name} is no Jinja that can be used: {_said(error)}") from error

    def render(variables: Mapping[str, Any]) -> str:
        environment.steps, parts, size = 0, [], 0
        try:
            for part in template.generate(**variables):
                parts.append(part)
                if (size := size + len(part)) > LONGEST_OUTPUT:
                    raise TemplateRenderError(f"{name} gives over {LONGEST_OUTPUT:,} characters: shorten it")
        except TemplateRenderError:
            raise
        except Exception as error:  # its expressions are Python's: they fail in any way
            raise TemplateRenderError(f"{name} fails: {_said(error)}") from error
        return "".join(parts)

    return render


def _said(error: BaseException) -> str:
    line = getattr(error, "lineno", None)
    return f"{type(error).__name__}: {str(error)[:300]}" + (f" (line {line})" if line else "")


class _Sandbox(ImmutableSandboxedEnvironment):
    """Counts steps, and multiplies numbers alone: `'x' * 10**9` would fill the memory."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self, strict: bool) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, LoopControlExtension],
            undefined=StrictUndefined if strict else Undefined,
        )
        self.steps = 0
        self.filters["tojson"] = _to_json
        allowed = {name: self.globals[name] for name in ("namespace", "dict", "range")}
        self.globals.clear()
        self.globals |= {**allowed, "raise_exception": _raise_exception}

    def counted(self, source: str) -> Template:
        """The template, with a step counted at the head of each loop's and macro's body."""
        tree = self.parse(source)
        if any(tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends))):
            raise TemplateError("it may not read other templates: write all of it into one")
        repeated: list[nodes.For | nodes.Macro | nodes.CallBlock] = [
            *tree.find_all(nodes.For),
            *tree.find_all(nodes.Macro),
            *tree.find_all(nodes.CallBlock),
        ]
        for node in repeated:
            call = nodes.Call(nodes.EnvironmentAttribute("step"), [], [], None, None, lineno=node.lineno)
            node.body.insert(0, nodes.ExprStmt(call, lineno=node.lineno))
        tree.set_environment(self)
        return Template.from_code(self, self.compile(tree), dict(self.globals))

    def step(self) -> str:
        """Count one."""
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise SecurityError(f"it takes over {MOST_STEPS:,} steps")
        return ""

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if not (isinstance(left, int | float) and isinstance(right, int | float)):
            raise SecurityError(f"{operator} is for numbers alone")
        if operator == "**" and max(abs(left), abs(right)) > _LARGEST_POWER:
            raise SecurityError(f"powers go up to {_LARGEST_POWER}")
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """`{% generation %}`, with which some chat templates mark what a model says: nothing to a prompt."""

    tags = {"generation"}  # noqa: RUF012  # as jinja2 has it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """What stands between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)
