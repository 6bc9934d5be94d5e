"""A signal that only production computes: a spec that uses it can be replayed, never trained on."""

import numpy as np
import pytest

from corewrite.cycle import PipelineConfig, train_on_logs, write_catalogue, write_labels
from corewrite.deployment.settings import RankerSettings
from corewrite.domain import Catalogue, Query
from corewrite.fusion import parse_spec
from corewrite.relevance import Labels

ORIGINAL = """\
rawrank: {original: [{signal: dense, eps: 0.01}]}
finerank:
  original: [{signal: relevance, eps: 0.01}, {signal: ctr, eps: 0.01}]
  rewrite: [{signal: relevance, eps: 0.05}]
"""
REWRITE = """\
rawrank: {original: [{signal: dense, eps: 0.01}]}
finerank:
  original: [{signal: relevance, eps: 0.01}]
  rewrite: [{signal: ctr, eps: 0.05}]
"""


@pytest.mark.parametrize("spec", [ORIGINAL, REWRITE], ids=["original", "rewrite"])
def test_train_names_the_signal_before_it_reads_a_log(tmp_path, steps, spec):
    n = 40
    titles = tuple(f"red lion video{i}" for i in range(n))
    ids = tuple(f"d{i}" for i in range(n))
    catalogue = Catalogue(ids, titles, ("",) * n, np.ones((n, 2), np.float32), np.full(n, 60.0), np.ones(n))
    write_catalogue(catalogue, tmp_path / "documents.parquet")
    labels = Labels([Query("red lion")], np.array([0]), np.array([3.0]))
    write_labels(labels, catalogue, tmp_path / "labels.parquet")
    logs = [tmp_path / "that-cannot-be-read.ndjson"]
    logs[0].write_text("no search\n")
    with pytest.raises(ValueError, match=r"computes the signal 'ctr' .* a logged one can only be replayed"):
        train_on_logs(
            tmp_path / "documents.parquet", logs, logs, tmp_path / "labels.parquet", tmp_path / "run", spec=parse_spec(spec),
            ranker=RankerSettings.model_validate({"signals": {"ctr": {"kind": "logged"}}}), config=PipelineConfig(), seed=0,
            steps=steps,
        )  # fmt: skip
