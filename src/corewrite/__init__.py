"""corewrite: continuously reward-finetuned LLM query rewriting for multi-stage search.

What a program of yours needs first has its name here; docs/concepts/architecture.md says which package holds the rest. Each is
imported when it is first used (PEP 562): `import corewrite` loads nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from corewrite.version import VERSION

if TYPE_CHECKING:
    from corewrite.cycle import train_on_logs as train_on_logs
    from corewrite.cycle.config_sections import load_cycle_config as load_cycle_config
    from corewrite.cycle.run import run_cycle as run_cycle
    from corewrite.deployment.explain import explain_search as explain_search
    from corewrite.deployment.explain import load_champion as load_champion
    from corewrite.deployment.load import load_deployment as load_deployment
    from corewrite.deployment.open import RankerOpener as RankerOpener
    from corewrite.experiment import read_launch as read_launch
    from corewrite.fusion import evaluate_stage as evaluate_stage
    from corewrite.fusion import load_spec as load_spec
    from corewrite.fusion import log_reward as log_reward
    from corewrite.fusion.compilers import compile_spec as compile_spec
    from corewrite.gate import run_gate as run_gate
    from corewrite.logs import read_log as read_log
    from corewrite.registry import Registry as Registry
    from corewrite.rewriter import load_rewriter as load_rewriter
    from corewrite.serving.app import build_app as build_app
    from corewrite.training import train as train

_HOMES = {
    "Registry": "corewrite.registry",
    "RankerOpener": "corewrite.deployment.open",
    "build_app": "corewrite.serving.app",
    "compile_spec": "corewrite.fusion.compilers",
    "evaluate_stage": "corewrite.fusion",
    "explain_search": "corewrite.deployment.explain",
    "load_champion": "corewrite.deployment.explain",
    "load_cycle_config": "corewrite.cycle.config_sections",
    "load_deployment": "corewrite.deployment.load",
    "load_rewriter": "corewrite.rewriter",
    "load_spec": "corewrite.fusion",
    "log_reward": "corewrite.fusion",
    "read_launch": "corewrite.experiment",
    "read_log": "corewrite.logs",
    "run_cycle": "corewrite.cycle.run",
    "run_gate": "corewrite.gate",
    "train": "corewrite.training",
    "train_on_logs": "corewrite.cycle",
}
"""Where each public name is defined or re-exported; the same as above, which type checkers read."""

__version__ = VERSION
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
