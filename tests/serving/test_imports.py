"""What a server, and the command that starts it, load: nothing that only fits, tests or draws."""

import subprocess
import sys

import pytest

NEVER = ["sklearn", "vl_convert", "tea_tasting", "statsmodels", "duckdb", "ibis"]
SERVER = "import corewrite.serving.app, corewrite.serving.worker"
WORKER = "import corewrite.serving.worker"
COMMAND = """
import uvicorn
uvicorn.run = lambda *arguments, **options: print("listens")
from pathlib import Path
from corewrite.cli.serve import serve
serve(None, Path(sys.argv[1]), None, 0, None, False)
"""


def loaded(code: str, *arguments: str) -> set[str]:
    """Names of the packages that a fresh process has loaded after `code`."""
    report = "print('loaded', *sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", f"import sys\n{code}\n{report}", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_the_probe_sees_what_is_loaded():
    """Otherwise the tests below could not fail."""
    assert {"sklearn", "torch"} <= loaded("import sklearn.isotonic, torch") and "sklearn" not in loaded("import json")


@pytest.mark.parametrize("code", [SERVER, WORKER])
def test_a_server_loads_nothing_that_fits_tests_or_draws(code):
    found = loaded(code)
    assert "torch" in found and not found & set(NEVER)


def test_what_the_command_loads_before_it_listens(made, tmp_path):
    """All of `corewrite serve` up to where uvicorn starts the workers."""
    found = loaded(COMMAND, str(made.file(tmp_path / "corewrite.yaml")))
    assert "uvicorn" in found and not found & set(NEVER)
