"""What is Redis' own, against a real server: scores, texts of any kind, time, what is refused, and what was never sent."""

import socket
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corewrite.deployment.recall import RecallOpener
from corewrite.deployment.settings import RedisRecall
from corewrite.domain import Catalogue, words
from corewrite.search.engines import RedisEngine, fill_redis
from corewrite.search.engines.port import EngineError, EngineUnavailableError

Redis = pytest.importorskip("redis").Redis
OPERATORS = r"""|-*@{}()[]"'~%$:;!?=<>&^#+,./\ $w0 @words:(red) (red)|(lion) "red lion" re* %red% -red ~red """
OPERATORS += "@dense:[VECTOR_RANGE 5 $vector] *=>[KNN 9 @dense $vector] {tag} [0 inf] inf -inf nan w'r?d' $vector isempty(x)"
FIXED = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
typed = st.lists(
    st.one_of(st.sampled_from(OPERATORS.split(" ")), st.sampled_from("red Lion DANCE snow".split()), st.text(max_size=8)),
    max_size=6,
).map(lambda parts: " ".join(parts))  # fmt: skip


def build_document_rows(texts):
    n = len(texts)
    ids = tuple(f"{i}:é*" for i in range(n))
    return Catalogue(ids, tuple(texts), ("",) * n, np.zeros((n, 1), np.float32), np.ones(n), np.ones(n))


def test_scores_are_bm25_itself(redis, catalogue, vectors, word_scores):
    """The formula by hand, every score and not only the order."""
    fill_redis(redis, "videos", catalogue, vectors)
    engine = RedisEngine(redis, "videos", catalogue)
    for text in ("red lion", "cat dog river night garden", "snow"):
        query = (*engine._by_words(text), "LIMIT", 0, 40, "DIALECT", 2)
        (answer,) = engine._ask([("FT.SEARCH", "videos", *query)], "")
        wanted = word_scores(text, 0.5) * 2.2  # the k1 + 1 that Lucene leaves out
        scores = {catalogue.rows_by_id[engine._parse_id(hit[b"id"])]: hit[b"score"] for hit in answer[b"results"]}
        assert scores == {row: pytest.approx(wanted[row], rel=1e-7) for row in np.flatnonzero(wanted)}


@FIXED
@given(texts=st.lists(typed, max_size=5))
def test_whatever_is_typed_is_words_and_nothing_else(redis_server, catalogue, vectors, texts):
    client = redis_server.client()
    if not client.exists("typed:" + catalogue.ids[0]):
        fill_redis(client, "typed", catalogue, vectors)
    held = [set(words(f"{a} {b}")) for a, b in zip(catalogue.titles, catalogue.texts, strict=True)]
    found = RedisEngine(client, "typed", catalogue).search_text(texts, 40)
    for text, rows in zip(texts, found, strict=True):
        assert set(rows[rows >= 0].tolist()) == {i for i, document in enumerate(held) if document & set(words(text))}
    client.close()


@FIXED
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), min_size=1, max_size=4))
def test_documents_of_any_writing_are_found_by_each_of_their_words(redis, texts):
    redis.flushall()
    whole = build_document_rows(texts)
    fill_redis(redis, "any", whole, np.ones((len(texts), 2), np.float32), algorithm="FLAT")
    engine = RedisEngine(redis, "any", whole)
    every = sorted({word for text in texts for word in words(text)})
    for word, rows in zip(every, engine.search_text(every, len(texts)), strict=True):
        assert set(rows[rows >= 0].tolist()) == {i for i, text in enumerate(texts) if word in words(text)}, word


def test_words_and_queries_of_any_length(redis):
    # The server keeps 128 bytes of a word, which may end in the middle of a letter.
    long = [letter * n for letter, n in (("a", 127), ("b", 128), ("c", 129), ("é", 65), ("語", 43), ("d", 1000), ("e", 5000))]
    many = [f"w{i}" for i in range(1500)]
    whole = build_document_rows([*long, " ".join(many), "lion"])
    fill_redis(redis, "long", whole, np.ones((len(whole), 2), np.float32), algorithm="FLAT")
    engine = RedisEngine(redis, "long", whole)
    found = engine.search_text([*long, many[-1]], 1)[:, 0]
    assert found.tolist() == [*range(8)]
    assert set(engine.search_text([" ".join([*many, "lion"])], 3)[0].tolist()) == {7, 8, -1}


def test_unit_vectors_are_ranked_by_cosine_exactly_where_the_field_is_flat(redis):
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(2_000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    whole = build_document_rows([""] * 2_000)
    asked = rng.normal(size=(20, 16)).astype(np.float32)
    cosine = asked.astype(float) @ vectors.T.astype(float) / np.linalg.norm(asked, axis=1, keepdims=True)
    best = np.argsort(-cosine, axis=1)[:, :50]
    fill_redis(redis, "flat", whole, vectors, algorithm="FLAT")
    assert RedisEngine(redis, "flat", whole).search_vector(asked, 50).tolist() == best.tolist()
    fill_redis(redis, "graph", whole, vectors)
    along = RedisEngine(redis, "graph", whole).search_vector(asked, 50)
    met = [len(set(a) & set(b)) / 50 for a, b in zip(along.tolist(), best.tolist(), strict=True)]
    assert np.mean(met) > 0.9, "the graph finds most of them"


def test_a_missing_document_has_no_score_and_a_strange_one_no_place(redis, catalogue, vectors):
    fill_redis(redis, "videos", catalogue, vectors)
    redis.delete(f"videos:{catalogue.ids[3]}")
    redis.hset(b"videos:\xff\xfe", mapping={"words": "red", "dense": vectors[0].tobytes()})
    half = Catalogue(*(column[:20] for column in (
        catalogue.ids, catalogue.titles, catalogue.texts, catalogue.visual, catalogue.seconds, catalogue.prior
    )))  # fmt: skip
    engine = RedisEngine(redis, "videos", half)
    assert np.isnan(engine.score(vectors[:1], np.array([[2, 3, 4]]))).tolist() == [[False, True, False]]
    found = engine.search_vector(vectors[:1], 60)[0]
    assert set(found[found >= 0]) == set(range(20)) - {3}
    redis.hset(f"videos:{catalogue.ids[4]}", "dense", b"12345")
    with pytest.raises(EngineError, match="'dense' of document 'video/4 é' in 'videos' is no vector"):
        engine.score(vectors[:1], np.array([[4]]))
    redis.delete(f"videos:{catalogue.ids[5]}")
    redis.set(f"videos:{catalogue.ids[5]}", "a text")
    with pytest.raises(EngineError, match="a document of 'videos' failed: WRONGTYPE"):
        engine.score(vectors[:1], np.array([[5]]))


def test_an_index_of_one_s_own(redis, catalogue, vectors):
    """Another prefix, names with characters that are operators, a stemmer, stop words."""
    schema = ["the text-field", "TEXT", "my-vector", "VECTOR", "FLAT", 6, "TYPE", "FLOAT32", "DIM", 6, "DISTANCE_METRIC", "IP"]
    redis.execute_command("FT.CREATE", "own", "PREFIX", 1, "doc|", "SCHEMA", *schema)
    for doc_id, title, vector in zip(catalogue.ids, catalogue.titles, vectors, strict=True):
        redis.hset(f"doc|{doc_id}", mapping={"the text-field": f"the {title}s sleeping", "my-vector": vector.tobytes()})
    engine = RedisEngine(
        redis, "own", catalogue, text_field="the text-field", vector_field="my-vector", key_prefix="doc|", timeout_ms=500
    )
    assert (engine.search_text(["the sleeper sleeps"], 40)[0] >= 0).all()
    assert (engine.search_text(["the"], 40)[0] < 0).all()
    assert engine.search_vector(vectors[:1], 40)[0].tolist() == np.argsort(-(vectors @ vectors[0])).tolist()
    assert engine.score(vectors[:1], np.array([[7]]))[0, 0] == pytest.approx(float(vectors[0].astype(float) @ vectors[7]))


def test_what_the_server_cut_by_time_is_no_answer(redis):
    """Many documents with one word, a millisecond: the server answers with those it came to, and a warning."""
    n = 30_000
    whole = build_document_rows(["lion red"] * n)
    fill_redis(redis, "large", whole, np.ones((n, 2), np.float32), algorithm="FLAT")
    assert (RedisEngine(redis, "large", whole, timeout_ms=60_000).search_text(["lion red"], n)[0] >= 0).all()
    with pytest.raises(EngineError, match="'large' was answered in part: Timeout"):
        RedisEngine(redis, "large", whole, timeout_ms=1).search_text(["lion red"], n)


def test_messages_never_hold_what_was_typed(redis, catalogue):
    with pytest.raises(EngineError, match="a search in 'none' failed") as error:
        RedisEngine(redis, "none", catalogue).search_text(["secret wish"], 3)
    assert "secret" not in str(error.value) and error.value.__cause__ is None


def test_a_client_that_cannot_say_whether_an_answer_is_whole_is_refused(redis_server, catalogue, vectors, redis):
    fill_redis(redis, "videos", catalogue, vectors)
    for wrong in ({"protocol": 2}, {"protocol": 3, "decode_responses": True}):
        client = Redis(port=redis_server.port, **wrong)
        with pytest.raises(EngineError, match="open the client with protocol=3 and without decode_responses"):
            RedisEngine(client, "videos", catalogue).search_text(["lion"], 3)
        client.close()


def test_filling_never_overwrites(redis, catalogue, vectors):
    fill_redis(redis, "videos", catalogue, vectors)
    with pytest.raises(ValueError, match="keys that begin with 'videos:' are there already"):
        fill_redis(redis, "videos", catalogue, vectors)
    redis.execute_command("FT.CREATE", "taken", "PREFIX", 1, "other:", "SCHEMA", "a", "TEXT")
    with pytest.raises(ValueError, match="index 'taken' is there already"):
        fill_redis(redis, "taken", catalogue, vectors)
    with pytest.raises(ValueError, match="39 vectors for 40"):
        fill_redis(redis, "other", catalogue, vectors[1:])
    assert redis.dbsize() == 40


def opened(url, catalogue, **more):
    return RecallOpener(RedisRecall(kind="redis", url=url, index="videos", vector_field=None, **more), catalogue).open("", None)


def test_a_server_that_hangs_costs_one_time_out_and_is_found_again(redis, redis_server, catalogue, vectors):
    fill_redis(redis, "videos", catalogue, vectors)
    engine = opened(redis_server.url, catalogue, timeout_ms=300)
    assert engine.search_text(["lion"], 3)[0, 0] >= 0
    redis_server.pause()
    try:
        began = time.monotonic()
        with pytest.raises(EngineUnavailableError, match=r"'videos' got no answer: TimeoutError: Timeout (reading|writing)"):
            engine.search_text(["lion"], 3)
        assert 0.25 < time.monotonic() - began < 0.6
    finally:
        redis_server.go_on()
    assert engine.search_text(["lion"], 3)[0, 0] >= 0


def test_a_connection_closed_while_it_lay_idle_is_opened_again(redis, redis_server, catalogue, vectors):
    fill_redis(redis, "videos", catalogue, vectors)
    engine = opened(redis_server.url, catalogue)
    wanted = engine.search_text(["lion"], 9).tolist()
    redis.client_kill_filter(_type="normal", skipme=True)
    assert engine.search_text(["lion"], 9).tolist() == wanted


def test_no_server_is_said_at_once(catalogue):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        engine = opened(f"redis://127.0.0.1:{probe.getsockname()[1]}", catalogue)
        began = time.monotonic()
        with pytest.raises(EngineUnavailableError, match="'videos' got no answer: ConnectionError: Error 111 connecting"):
            engine.search_text(["lion"], 3)
        assert time.monotonic() - began < 1


def test_the_login_is_read_from_the_environment(redis, redis_server, catalogue, vectors, monkeypatch):
    fill_redis(redis, "videos", catalogue, vectors)
    # A colon belongs to the password; whoever may only search and read needs no more than these; the index counts as a key.
    allowed = ["+ft.search", "+hget", "+client", "+hello", "~videos*"]
    redis.execute_command("ACL", "SETUSER", "reader", "on", ">pass:word", *allowed)
    monkeypatch.setenv("LOGIN", "reader:pass:word")
    assert opened(redis_server.url, catalogue, login_env="LOGIN").search_text(["lion"], 3)[0, 0] >= 0
    monkeypatch.setenv("LOGIN", "reader:wrong")
    with pytest.raises(EngineUnavailableError, match="invalid username") as error:
        opened(redis_server.url, catalogue, login_env="LOGIN").search_text(["lion"], 3)
    assert "wrong" not in str(error.value)
    redis.execute_command("ACL", "DELUSER", "reader")
