"""Ctrl-C: one line that says how to go on, exit code 130, and nothing left running."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from corewrite.cli.main import app

CONFIG = "documents: d.parquet\nlogs: logs\nlabels: l.parquet\nrun: here\nfrozen: f.parquet\n"
WEEK = "it goes on from the last finished step"
CASES = {
    "train": ("corewrite.cycle.train_on_logs", "train -c c.yaml", "it goes on from the last checkpoint in the run folder"),
    "cycle run": ("corewrite.cycle.run.run_cycle", "cycle run -c c.yaml", WEEK),
    "simulate": (
        "corewrite.studies.longitudinal.run.run_longitudinal",
        "simulate --weeks 2 --miniature --out o",
        "goes on with the first week that",
    ),
    "gate bench": (
        "corewrite.studies.gate_benchmark.run.run_bench",
        "gate bench --miniature --out o",
        "goes on with the first row that",
    ),
    "gate calibrate": ("corewrite.cycle.gate_run.calibrate_margins", "gate calibrate -c c.yaml", "begins anew"),
    "demo": ("corewrite.studies.quickstart.run.run_demo", "demo --miniature --out o", "begins anew"),
    "gate run": ("corewrite.cycle.gate_run.gate_candidate", "gate run abc -c c.yaml", ""),
    "ingest": ("corewrite.logs.read_log", "ingest x.ndjson", ""),
}


@pytest.mark.parametrize("case", CASES)
def test_a_stopped_command_says_how_to_go_on(case, tmp_path, monkeypatch):
    target, args, message = CASES[case]
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(CONFIG)
    Path("logs").mkdir()
    for name in ("w1", "w2"):
        Path(f"logs/{name}.ndjson").write_text("\n")

    def stopped(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(target, stopped)
    result = CliRunner().invoke(app, args.split())
    said = " ".join(result.output.split())
    assert result.exit_code == 130 and "Traceback" not in said and "Aborted" not in said
    assert ("stopped" in said) == bool(message) and message in said, said


STUCK = """
import sys, threading, time
from concurrent.futures import ProcessPoolExecutor
import typer
from corewrite.cli.common import reported_errors
from corewrite.studies.side_by_side import processes

app = typer.Typer()

@app.command()
def work():
    with reported_errors("it goes on from the last whole step"):
        threading.Thread(target=time.sleep, args=(60,)).start()
        with processes(2) as pool:
            calls = [pool.submit(time.sleep, 60) for _ in range(2)]
            while not all(c.running() for c in calls):
                time.sleep(0.1)
            time.sleep(2)
            print("ready", flush=True)
            calls[0].result()

if __name__ == "__main__":
    app()
"""


def _heeds_interrupts():
    """What a shell starts in the background ignores SIGINT, and so would all that these tests start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _children(process):
    return [int(p) for p in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes in /proc")
@pytest.mark.parametrize("group", [False, True], ids=["the command alone", "all of the terminal"])
def test_what_it_started_ends_with_it(tmp_path, group):
    script = tmp_path / "stuck.py"
    script.write_text(STUCK)
    process = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_heeds_interrupts,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        children = _children(process.pid)
        assert len(children) >= 2
        began = time.monotonic()
        (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert time.monotonic() - began < 10
        assert process.returncode == 130
        assert said.strip() == "stopped; run the same command again: it goes on from the last whole step"
        while (alive := [c for c in children if Path(f"/proc/{c}").exists()]) and time.monotonic() - began < 15:
            time.sleep(0.1)
        assert not alive
    finally:
        if process.poll() is None:
            process.kill()
