"""A configuration of a much larger model than the weights beside it are of is refused before room is made for it."""

import json
import resource
import time

import numpy as np
import pytest

from corewrite.domain import Catalogue
from corewrite.relevance.backends import ClipEncoder, CrossEncoderScorer, ScoreCalibration, ScorerMismatchError, folder_hash

DOCUMENTS = Catalogue(("a",), ("red lion",), ("",), np.zeros((1, 1), np.float32), np.full(1, np.nan), np.ones(1))


def load(folder):
    if folder.name == "bert":
        pytest.importorskip("sentence_transformers")
        return CrossEncoderScorer(DOCUMENTS, folder, folder_hash(folder), ScoreCalibration())
    return ClipEncoder(folder, folder_hash(folder))


@pytest.fixture(params=["cross_encoder_folder", "clip_folder"])
def folder(request):
    return request.getfixturevalue(request.param)


def changed(folder, **values):
    file = folder / "config.json"
    config = json.loads(file.read_text())
    for part in [config, *(v for k, v in config.items() if k in ("text_config", "vision_config"))]:
        part.update(values)
    file.write_text(json.dumps(config))


@pytest.mark.parametrize("values", [{"vocab_size": 10**8}, {"intermediate_size": 10**8}, {"num_hidden_layers": 10**9}])
def test_a_much_larger_model(folder, values):
    load(folder)  # as it is
    changed(folder, **values)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(ScorerMismatchError, match="weights"):
        load(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # KiB; asked for were gigabytes
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    "values", [{"hidden_size": "wide"}, {"hidden_size": -4}, {"num_attention_heads": 0}, {"model_type": "odd"}]
)
def test_what_no_model_can_be_made_of(folder, values):
    changed(folder, **values)
    with pytest.raises(ScorerMismatchError):
        load(folder)
