"""`examples/first_run.ipynb` runs from top to bottom on the miniature's run folder, and holds no outputs."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_run.ipynb"


def test_it_is_small_and_holds_no_outputs():
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    assert NOTEBOOK.stat().st_size < 30_000
    assert all(not c["outputs"] and c["execution_count"] is None for c in cells if c["cell_type"] == "code")
    text = "".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links and all((NOTEBOOK.parent / link).is_file() for link in links)


@pytest.mark.e2e
def test_its_cells_run_on_a_miniature(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(run.folder)
    monkeypatch.chdir(tmp_path)
    names = {}
    for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert names["replayed"].share_agreeing == 1 and names["replayed"].compared >= 20
    assert f"{run.summary['ndcg10']['all']['oracle']:.3f}" in capsys.readouterr().out
    assert len(names["found"]["results"]) == 5
