"""Threads that share the cores: what is set, that it is set in time, and what the user set counts."""

import os
import subprocess
import sys

import pytest

from corewrite.cli import cores
from corewrite.cli.cores import SPINS, cpu_quota, share_cores


def groups(tmp_path, membership: str, files: dict[str, str]):
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text)
    return cpu_quota(tmp_path / "root", tmp_path / "membership")


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/a/b\n", {"cpu.max": "max 100000\n", "a/cpu.max": "150000 100000\n", "a/b/cpu.max": "400000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2.0),
        ("0::/docker/of-the-host\n", {"cpu.max": "300000 100000\n"}, 3.0),
        ("0::/a\n", {"a/cpu.max": "max 100000\n"}, None),
        ("4:memory:/x\n3:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "250000\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, 2.5),
        ("3:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, None),
        ("3:cpuset:/x\n", {"cpu.max": "100000 100000\n"}, None),
        ("", {}, None),
    ],
)
def test_the_quota_of_a_control_group(tmp_path, membership, files, quota):
    assert groups(tmp_path, membership, files) == quota


def test_no_control_groups_at_all(tmp_path):
    assert cpu_quota(tmp_path, tmp_path / "nowhere") is None


def test_the_quota_is_what_another_library_finds():
    """loky counts cores by affinity and control group too, rounded up."""
    loky = pytest.importorskip("joblib.externals.loky.backend.context")
    import math

    mine = cpu_quota()
    cores_here = len(os.sched_getaffinity(0))
    assert loky.cpu_count() == min(cores_here, math.ceil(mine) if mine else cores_here)


def test_fewer_cores_than_are_seen_are_fewer_threads(monkeypatch):
    monkeypatch.setattr(cores, "_cores", lambda: 64)
    for quota, expected in ((2.5, "2"), (0.5, "1"), (64.0, None), (None, None)):
        monkeypatch.setattr(cores, "cpu_quota", lambda quota=quota: quota)
        variables: dict[str, str] = {}
        share_cores(variables)
        assert variables.get("OMP_NUM_THREADS") == expected and variables["GOMP_SPINCOUNT"] == SPINS


def test_what_the_user_set_counts(monkeypatch):
    monkeypatch.setattr(cores, "cpu_quota", lambda: 1.0)
    monkeypatch.setattr(cores, "_cores", lambda: 8)
    mine = {"OMP_WAIT_POLICY": "active", "OMP_NUM_THREADS": "6"}
    share_cores(mine)
    assert mine == {"OMP_WAIT_POLICY": "active", "OMP_NUM_THREADS": "6"}
    mine = {"GOMP_SPINCOUNT": "7"}
    share_cores(mine)
    assert mine["GOMP_SPINCOUNT"] == "7"


def test_it_is_set_before_the_command_line_imports_what_computes():
    """libgomp says itself what it was told, when torch loads it."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from corewrite.cli.main import app\n"
        "assert not {'numpy', 'torch', 'sklearn'} & set(sys.modules), 'too late'\n"
        "CliRunner().invoke(app, ['registry', 'list', '--run', 'nowhere'])\n"
        "import torch"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean | {"OMP_DISPLAY_ENV": "verbose"}, capture_output=True, text=True, check=True
    )
    assert f"GOMP_SPINCOUNT = '{SPINS}'" in done.stderr
