"""A ranker over documents on disk: the same lists, rewards and fingerprints as over those in memory, and what needs memory."""

import sys
from types import ModuleType

import numpy as np
import pytest

from corewrite.deployment.deployment import Deployment
from corewrite.deployment.documents import open_documents
from corewrite.deployment.open import RankerOpener
from corewrite.deployment.settings import RankerSettings
from corewrite.domain import Catalogue, Query, TrainingInstance, words
from corewrite.domain.documents import text_column
from corewrite.fusion import default_spec
from corewrite.relevance import cold_start
from corewrite.relevance.embedded import TooManyDocumentsError
from corewrite.search.document_store import DocumentStore
from corewrite.search.documents import read_catalogue, write_catalogue
from corewrite.simulation.config import WorldConfig
from corewrite.simulation.world import make_world


def shared_words(inputs):
    """Words in common, and a little of the picture: some probability."""
    met = [len(set(words(t)) & set(words(d))) for t, d in zip(inputs["text"], inputs["document"], strict=True)]
    return 1 / (1 + np.exp(1.0 - np.array(met) - 0.1 * inputs["picture"][:, 0]))


class ByWords:
    """An engine of one's own: ids of the documents with most words of a text."""

    def __init__(self, documents):
        self.documents = documents
        every = np.arange(len(documents))
        self.said = [set(words(t)) for t in text_column(documents, "title", every)]
        self.ids = documents.load_ids(every)

    def search_text(self, texts, k):
        out = np.full((len(texts), k), -1, np.int64)
        for i, text in enumerate(texts):
            met = sorted(((-len(set(words(text)) & said), d) for d, said in zip(self.ids, self.said, strict=True)))[:k]
            rows = self.documents.rows([d for count, d in met if count])
            out[i, : len(rows)] = rows
        return out


@pytest.fixture
def foreign(monkeypatch):
    module = ModuleType("some_teams_ranker")
    module.scorer, module.engine = lambda: shared_words, ByWords
    monkeypatch.setitem(sys.modules, "some_teams_ranker", module)
    inputs = {"text": "text", "document": "document", "picture": "document.visual"}
    signal = {"kind": "python", "factory": "some_teams_ranker:scorer", "version": "1", "inputs": inputs}
    recall = {"kind": "python", "factory": "some_teams_ranker:engine"}
    return RankerSettings.model_validate({"signals": {"relevance": signal, "dense": signal}, "recall": recall})


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    path = tmp_path_factory.mktemp("documents") / "documents.parquet"
    write_catalogue(make_world(WorldConfig(seed=3, videos=500, entities=20)).catalogue, path)
    return path


def instances(catalogue):
    rng = np.random.default_rng(0)
    found = []
    for i in range(60):
        good, *bad = catalogue.load_ids(rng.choice(len(catalogue), 4, replace=False))
        title = catalogue.column("title", catalogue.rows([good]))[0]
        query = Query(" ".join(title.split()[:2]))
        found.append(TrainingInstance(f"q{i}", f"u{i}", query, (good,), (1.0,), tuple(bad), (1.0, 2.0, 0.5)))
    return found


def test_lists_rewards_and_fingerprints_are_those_of_the_documents_in_memory(documents, foreign):
    store = open_documents(documents, foreign)
    assert isinstance(store, DocumentStore)
    catalogue = read_catalogue(documents)
    asked = instances(catalogue)
    rewrites = [[x.query.text, f"{x.query.text} {y.query.text}"] for x, y in zip(asked, asked[1:] + asked[:1], strict=True)]
    found = []
    for held in (store, catalogue):
        ranker = RankerOpener(foreign, held).build(None)
        deployment = Deployment(ranker, default_spec())
        answers = deployment.cascade.search([x.query.text for x in asked], [r[1] for r in rewrites], depth=20)
        found.append((answers, np.array(deployment.reward(asked, rewrites)), ranker.pins))
    (lists, rewards, pins), (lists_too, rewards_too, pins_too) = found
    np.testing.assert_array_equal(lists.rows, lists_too.rows)
    for name, factors in lists.factors.items():
        np.testing.assert_array_equal(factors, lists_too.factors[name])
    np.testing.assert_array_equal(rewards, rewards_too)
    assert pins == pins_too and rewards.any() and (lists.rows >= 0).any()
    assert "catalogue" not in vars(store), "nothing was read into memory"


def test_what_is_embedded_is_opened_in_memory(documents, foreign):
    assert isinstance(open_documents(documents, RankerSettings()), Catalogue)
    for signal in ("relevance", "dense"):
        some = foreign.model_copy(update={"signals": {k: v for k, v in foreign.signals.items() if k != signal}})
        assert isinstance(open_documents(documents, some), Catalogue)
    model = cold_start(read_catalogue(documents))
    settings = RankerSettings()
    # An artifact of before may need memory although the settings of today do not.
    both = [RankerOpener(settings, d).build(model) for d in (DocumentStore.open(documents), read_catalogue(documents))]
    scores = [ranker.signals["relevance"].score(["a b"], np.arange(10)[None]) for ranker in both]
    np.testing.assert_array_equal(*scores)


def test_too_many_for_what_is_embedded_says_what_to_set(documents, foreign, monkeypatch):
    model = cold_start(read_catalogue(documents))
    monkeypatch.setattr("corewrite.relevance.embedded.memory_bytes", lambda: 499 * 8192)
    message = r"500 documents are over the embedded engine's limit of 499.*recall: \{kind: opensearch, vector_field.* and dense"
    with pytest.raises(TooManyDocumentsError, match=message):
        open_documents(documents, RankerSettings())
    with pytest.raises(TooManyDocumentsError, match=message):
        RankerOpener(RankerSettings(), DocumentStore.open(documents)).build(model)
    clip = RankerSettings.model_validate({"signals": {"relevance": {"kind": "clip", "folder": "f", "pin": "0" * 64}}}).signal(
        "relevance"
    )
    with pytest.raises(TooManyDocumentsError, match=message):
        open_documents(documents, foreign.model_copy(update={"signals": dict(relevance=clip, dense=clip)}))
    assert len(open_documents(documents, foreign)) == 500


def test_the_conversion_is_shown(tmp_path, documents, foreign):
    path = tmp_path / "again.parquet"
    path.write_bytes(documents.read_bytes())
    shown = []

    class Steps:
        def step(self, title):
            from contextlib import nullcontext

            return nullcontext(lambda done, total: shown.append((title, done, total)))

    open_documents(path, foreign, Steps())
    assert shown == [("open the documents", 500, 500)]
