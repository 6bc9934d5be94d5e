import gzip
import json

import pytest

from corewrite.evaluation.conversations.reader import ConversationsError, read_conversations

PASSAGES = '{"id": "p/1", "text": "one"}\n{"id": "p/2", "text": "two"}\n'
TURN = {
    "collection": "made",
    "conversation": "c/1",
    "turn": 2,
    "query": "and that?",
    "human_rewrite": None,
    "earlier_queries": ["this?"],
    "earlier_passages": ["p/1", "p/0"],
    "passage": "p/2",
}


def read(tmp_path, turns, passages=PASSAGES, **options):
    (tmp_path / "turns.jsonl").write_bytes(turns if isinstance(turns, bytes) else turns.encode())
    (tmp_path / "passages.jsonl").write_text(passages, "utf-8")
    return read_conversations([tmp_path / "turns.jsonl"], [tmp_path / "passages.jsonl"], **options)


def test_turns_after_the_first_with_a_passage_are_measured(files):
    data = read_conversations([files[0]], [files[1]])
    assert [t.id for t in data.turns] == ["c/1/2", "c/1/3", "c/2/2", "c/2/3", "d/1/2"] and data.passed_over == 3
    assert [data.passages[row].id for row in data.own_rows] == ["p/2", "p/3", "q/2", "q/3", "p/4"]
    query = data.queries[1]
    assert query.text == "How is it treated?" and query.context.queries == ("What is throat cancer?", "What are its symptoms?")
    assert [t[:12] for t in query.context.titles] == ["Throat cance", "Symptoms of "]
    assert [t.id for t in read_conversations([files[0]], [files[1]], limit=2).turns] == ["c/1/2", "c/1/3"]


def test_a_number_is_a_turns_name_gzip_is_read_and_what_is_unknown_in_a_context_is_counted(tmp_path):
    (tmp_path / "more.jsonl").write_text('{"id": "p/3", "text": "three", "source": "elsewhere"}\n')
    data = read(tmp_path, gzip.compress(json.dumps(TURN).encode()))
    assert data.turns[0].id == "c/1/2" and data.unknown_earlier == 1 and data.queries[0].context.titles == ("one",)
    both = read_conversations([tmp_path / "turns.jsonl"], [tmp_path / "passages.jsonl", tmp_path / "more.jsonl"])
    assert [p.id for p in both.passages] == ["p/1", "p/2", "p/3"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"passage": "p/9"}, r"turns.jsonl:2: passage 'p/9' is in no line of .*passages.jsonl: name its file with --passages"),
        ({"passage": "p/1"}, r":2: passage 'p/1' is among earlier_passages"),
        ({"query": " "}, r":2: query ' ': it says nothing; a turn has collection"),
        ({"query": 7}, r":2: query 7: Input should be a valid string"),
        ({"query": "\ud800"}, r":2: query .*lone surrogate"),
        ({"conversation": "c 1"}, r":2: conversation 'c 1': an id is not empty and has no white space"),
        ({"earlier_queries": "this?"}, r":2: earlier_queries 'this\?': Input should be a valid list"),
        ({"earlier_passages": ["p/1", None]}, r":2: earlier_passages.1 None"),
        ({"passage": ...}, r":2: passage is missing: .*null where there is none"),
        ({"turn": 1}, r":2: turn 'c/1/1' is there already, .*turns.jsonl:1"),
    ],
)
def test_a_bad_turn_is_refused_with_its_place(tmp_path, change, said):
    first = TURN | {"turn": 1, "passage": None}
    second = {k: v for k, v in (TURN | change).items() if v is not ...}
    with pytest.raises(ConversationsError, match=said):
        read(tmp_path, f"{json.dumps(first)}\n{json.dumps(second)}\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", r"turns.jsonl:1: '{' is no JSON object"),
        ("[1]", r":1: \[1\] is no JSON object"),
        ("[" * 100_000, r":1: .* is no JSON object"),
        ("", r"turns.jsonl: no turn can be measured \(0 were read\)"),
        (json.dumps(TURN | {"earlier_queries": []}), r"no turn can be measured \(1 were read\): one needs earlier_queries"),
        (b"\x1f\x8bnot gzip", r"turns.jsonl: cannot be unpacked"),
        (b"x" * (2**22 + 2), r"turns.jsonl: a line is over 4,194,304 bytes"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, text, said):
    with pytest.raises(ConversationsError, match=said):
        read(tmp_path, text)


def test_passages_that_stand_twice_are_refused(tmp_path):
    with pytest.raises(ConversationsError, match=r"passages.jsonl:3: passage 'p/1' is there already, .*:1"):
        read(tmp_path, json.dumps(TURN), PASSAGES + '{"id": "p/1", "text": "x"}')
    with pytest.raises(ConversationsError, match=r"passages.jsonl:1: text is missing: a passage has id and text"):
        read(tmp_path, json.dumps(TURN), '{"id": "p/1"}')
