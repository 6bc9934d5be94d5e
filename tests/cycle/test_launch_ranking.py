"""Same intent by the champion's ranking, the same for all arms; and thresholds as the first mined week froze them."""

import json

import numpy as np
import pytest

from corewrite.cycle.mined_week import first_thresholds
from corewrite.deployment.explain import NoChampionError
from corewrite.deployment.launch_ranking import champion_overlap
from corewrite.deployment.settings import RankerSettings
from corewrite.experiment.ab.launch_log import load_launch, load_thresholds
from corewrite.fusion import default_spec
from corewrite.logs import SatisfactionThresholds, UbiWriter, find_outcomes, read_log
from corewrite.registry import Candidate, Registry
from corewrite.relevance import cold_start
from corewrite.search.documents import read_catalogue

FROZEN = SatisfactionThresholds(np.zeros(0), np.array([10.0]))


def write_pairs(path, texts, arms):
    """A user for each arm and pair of titles: asks for one, and a minute later for the other; each arm displays its own."""
    with UbiWriter(path) as out:
        for arm in arms:
            for i, (one, other) in enumerate(texts):
                for k, text in enumerate((one, other)):
                    out.query(
                        query_id=f"{arm}{i}-{k}", client_id=f"{arm}{i}", user_query=text, timestamp=1e9 + 60 * k,
                        hit_ids=["same"] if arm == "treatment" else [f"{i}-{k}"], attributes={"arm": arm, "impacted": True},
                    )  # fmt: skip
        out.query(query_id="last", client_id="z", user_query="z", timestamp=1e9 + 7_200, hit_ids=[], attributes={})


def test_the_ranking_tells_both_arms_alike_whatever_they_displayed(platform, tmp_path, steps):
    documents = platform / "documents.parquet"
    catalogue = read_catalogue(documents)
    registry = Registry(tmp_path / "run" / "registry")
    with pytest.raises(NoChampionError, match="has no champion whose ranking"):
        champion_overlap(tmp_path / "run", documents, RankerSettings())
    spec = registry.save("spec", lambda f: (f / "fusion.yaml").write_text(default_spec().model_dump_json()) and None, {})
    relevance = registry.save("relevance", cold_start(catalogue).save, {})
    policy = registry.save("policy", lambda f: (f / "weights").write_text("none that is asked") and None, {})
    registry.promote(Candidate(policy.hash, relevance.hash, spec.hash), expected=None, reason="test", evidence=None)

    titles = [" ".join(t.split()[:3]) for t in catalogue.titles[:120]]
    texts = [(a, " ".join(reversed(b.split()))) for a, b in zip(titles, titles[1:], strict=False)]
    write_pairs(tmp_path / "log.ndjson", texts, ("control", "treatment"))
    overlap, told = champion_overlap(tmp_path / "run", documents, RankerSettings())
    assert "ranking of version 1" in told
    ranked = load_launch([tmp_path / "log.ndjson"], ranking=(overlap, told), thresholds=FROZEN, steps=steps)
    alone = load_launch([tmp_path / "log.ndjson"], thresholds=FROZEN, steps=steps)
    displayed = find_outcomes(read_log(tmp_path / "log.ndjson"), thresholds=FROZEN).to_arrow()

    def endings(table, arm):
        return {r["query_id"].removeprefix(arm): r["outcome"] for r in table.to_pylist() if r["arm"] == arm}

    assert endings(ranked.searches, "control") == endings(ranked.searches, "treatment")
    assert endings(alone.searches, "control") == endings(alone.searches, "treatment")
    assert endings(displayed, "control") != endings(displayed, "treatment")
    # The ranking knows of repairs that share no words, and by these alone they would be given up.
    by_ranking = {k for k, v in endings(ranked.searches, "control").items() if v == "changed_unsatisfied"}
    by_text = {k for k, v in endings(alone.searches, "control").items() if v == "changed_unsatisfied"}
    assert by_text < by_ranking
    first = dict(enumerate(texts))
    found = overlap([first[i] for i in range(len(texts))])
    assert by_ranking - by_text == {f"{i}-0" for i in range(len(texts)) if found[i] >= 0.2} - by_text
    assert ranked.same_intent == told and "similar texts alone" in alone.same_intent


def test_thresholds_of_the_first_mined_week(tmp_path):
    assert first_thresholds(tmp_path) is None
    for week, seconds in (("w2", [1.0, 2.0]), ("w1", [3.0, 4.0])):
        folder = tmp_path / "windows" / week
        folder.mkdir(parents=True)
        (folder / "about.json").write_text(json.dumps({"thresholds": {"edges": [30.0], "seconds": seconds}}))
    found = first_thresholds(tmp_path)
    assert found.seconds.tolist() == [3.0, 4.0]
    by_file = load_thresholds(tmp_path / "windows" / "w1" / "about.json")
    assert (by_file.edges.tolist(), by_file.seconds.tolist()) == ([30.0], [3.0, 4.0])


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"edges": [1], "seconds": [1]}', '{"edges": [2, 1], "seconds": [1, 2, 3]}',
        '{"edges": [], "seconds": ["x"]}', '{"edges": [], "seconds": [NaN]}', '{"thresholds": null}',
    ],
)  # fmt: skip
def test_what_is_no_thresholds_is_refused(text, tmp_path):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(ValueError, match=r"t\.json holds no thresholds"):
        load_thresholds(tmp_path / "t.json")
