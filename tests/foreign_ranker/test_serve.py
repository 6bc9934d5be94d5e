"""Real model servers (Triton, MLServer) on the loopback: the scores of torch, versions told apart, and an end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from foreign_ranker.broken import break_ranker
from foreign_ranker.export import export_versions
from foreign_ranker.serve import ENVIRONMENTS, ServerMissingError, run_server
from foreign_ranker.train import TrainingConfig, train_ranker
from scipy.special import logit

from corewrite.relevance.backends import KServeScorer, ScoreCalibration, ScorerMismatchError
from corewrite.relevance.backends.inputs import Input

ROOT = Path(__file__).parents[2]
INPUTS = {"text": Input("text"), "document": Input("document"), "picture": Input("document.visual")}
SERVERS = ("triton", "mlserver")


@pytest.fixture(scope="module")
def ranker(platform):
    """Hardly trained: what is served is compared with itself."""
    short = TrainingConfig(clozes=2048, epochs=0.1)
    return train_ranker(platform.catalogue, platform.window.impressions(platform.catalogue), seed=0, config=short)[0]


@pytest.fixture(scope="module")
def repository(ranker, tmp_path_factory) -> Path:
    versions = {"1": ranker, "2": break_ranker(ranker, "pictures")}
    return export_versions(versions, tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module", params=SERVERS)
def server(request, repository):
    try:
        with run_server(repository, server=request.param) as running:
            yield running
    except ServerMissingError as error:
        pytest.skip(str(error))


def test_it_answers_the_scores_of_torch_by_name_and_version(platform, ranker, pairs, server):
    texts, rows = pairs
    assert (server.model, server.versions) == ("ranker", ("1", "2"))
    expected = {"1": ranker, "2": break_ranker(ranker, "pictures")}
    found = {}
    for version in server.versions:
        scorer = KServeScorer(
            platform.catalogue, server.url, "ranker", version, calibration=ScoreCalibration(), inputs=INPUTS, timeout=60
        )
        found[version] = scorer.score(texts, rows)
        here = expected[version].bind(platform.catalogue).score(texts, rows)
        np.testing.assert_allclose(logit(found[version][rows >= 0]), logit(here[rows >= 0]), atol=1e-5, rtol=0)
    assert np.abs(found["1"] - found["2"]).max() > 1e-3
    with pytest.raises(ScorerMismatchError):
        KServeScorer(platform.catalogue, server.url, "ranker", "3", inputs=INPUTS, timeout=10).score(texts, rows)


def test_triton_takes_raw_bytes_too(platform, pairs, server):
    if httpx.get(f"{server.url}/v2").json()["name"] != "triton":
        pytest.skip("an extension that MLServer does not have")
    scores = [
        KServeScorer(
            platform.catalogue,
            server.url,
            "ranker",
            "1",
            calibration=ScoreCalibration(),
            inputs=INPUTS,
            timeout=60,
            binary=binary,
        ).score(*pairs)
        for binary in (False, True)
    ]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-6, rtol=0)


def test_a_version_that_is_not_there_is_named(repository):
    with pytest.raises(FileNotFoundError, match=r"no version 7: it has \['1', '2'\]"), run_server(repository, versions=["7"]):
        pass


def test_a_missing_server_says_what_to_do(repository, tmp_path):
    for name in SERVERS:
        with pytest.raises(ServerMissingError, match="make kserve"), run_server(repository, server=name, environments=tmp_path):
            pass


@pytest.fixture
def installed():
    found = [name for name in SERVERS if (ENVIRONMENTS / name / ".made").exists()]
    if not found:
        pytest.skip("no model server: run `make kserve`")
    return found[0]


def command(repository, server):
    return [sys.executable, "-m", "benchmarks.foreign_ranker.serve", str(repository), "--server", server, "--version", "2"]


def wait_for_silence(url):
    """Until nothing listens there any more."""
    for _ in range(150):
        try:
            httpx.get(f"{url}/v2", timeout=2)
        except httpx.TransportError:
            return
        time.sleep(0.1)
    pytest.fail(f"{url} still answers")


def test_the_launcher_prints_where_it_listens_and_stops_when_told(repository, installed):
    with subprocess.Popen(command(repository, installed), cwd=ROOT, stdout=subprocess.PIPE) as launcher:
        told = json.loads(launcher.stdout.readline())
        assert told["versions"] == ["2"] and told["url"].startswith("http://127.0.0.1:")
        assert httpx.get(f"{told['url']}/v2/models/ranker/versions/2/ready").status_code == 200
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(20) == 0
    wait_for_silence(told["url"])


def test_the_server_does_not_outlive_who_started_it(repository, installed):
    code = (
        "import subprocess, sys, os\n"
        f"launcher = subprocess.Popen({command(repository, installed)!r}, cwd={str(ROOT)!r}, stdout=subprocess.PIPE)\n"
        "sys.stdout.buffer.write(launcher.stdout.readline()); sys.stdout.flush(); os._exit(0)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=dict(os.environ), timeout=90)
    wait_for_silence(json.loads(out.stdout)["url"])


def test_the_launcher_says_what_is_wrong(tmp_path):
    done = subprocess.run(command(tmp_path, "triton"), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "error:" in done.stderr and "has no version 2" in done.stderr
