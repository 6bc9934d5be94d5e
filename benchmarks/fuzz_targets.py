"""What strangers' bytes reach by HTTP and by the rewriter, and fusion specs: each with what must hold whatever it is given.

A target takes bytes and says in a word what became of them; any exception out of it is a failure. Everything is made here:
documents, a registry and a small language model.
"""

import asyncio
import json
import math
import re
import tempfile
import unicodedata
import zlib
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from fuzz_inputs import JSON_WORDS, NUMBERS, TEXTS, YAML_WORDS
from pydantic import TypeAdapter, ValidationError
from starlette.responses import Response

from corewrite.domain import Query, query_from_json, query_to_json, words
from corewrite.domain.traffic_split import STAGES_OF, assign_arm
from corewrite.fusion import FusionSpec, SpecError, default_spec, load_spec, parse_spec
from corewrite.registry import Candidate, Registry
from corewrite.relevance import cold_start
from corewrite.rewriter import Completion, PromptTooLongError, Rewriter, TemplateConfig, as_rewrite, clean, new_small_decoder
from corewrite.rewriter.template import EARLIER, QUERY, REWRITE, TITLE
from corewrite.search.documents import write_catalogue
from corewrite.serving.app import build_app
from corewrite.serving.cache import MemoryCache, cache_key, canonical, sound
from corewrite.serving.log_line import Hasher
from corewrite.serving.middleware import Edge
from corewrite.serving.problems import MEDIA_TYPE, ProblemError
from corewrite.serving.process import _LINE_LIMIT, PolicyProcess, WorkerError, _greeting
from corewrite.serving.request_limits import check_depth, read_query
from corewrite.serving.rewriting import PolicyRewriter
from corewrite.serving.schemas import ExplainRequest, RewriteBatch, RewriteRequest, SearchRequest
from corewrite.serving.settings import RewriterSettings, ServeConfig
from corewrite.simulation.config import WorldConfig
from corewrite.simulation.world import make_world

T = TypeVar("T")
MAX_CHARACTERS, MAX_TEXTS = 120, 4


class BrokenError(AssertionError):
    """Something that must hold does not."""


def must(holds: bool, what: str) -> None:
    if not holds:
        raise BrokenError(what)


class Target(Protocol):
    """A parser: valid inputs to start from, pieces to put in, CPU seconds an input may take."""

    seeds: Sequence[bytes]
    words: tuple[bytes, ...]
    cpu_seconds: float
    limit: int
    deep: int

    def __call__(self, data: bytes) -> str: ...
    def close(self) -> None: ...


def is_rewrite(text: Any) -> bool:
    """Written here once more, by what is promised: one line without control or format characters, short, sendable."""
    return (
        isinstance(text, str) and 0 < len(text) <= MAX_CHARACTERS and text == " ".join(text.split())
        and all(unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} for c in text)
    )  # fmt: skip


# --- request bodies -----------------------------------------------------------------------------------------------------------

ROUTES = ("/v1/rewrite", "/v1/search", "/v1/explain")
_MODELS: tuple[TypeAdapter[Any], ...] = tuple(
    TypeAdapter(model) for model in (RewriteRequest | RewriteBatch, SearchRequest, ExplainRequest)
)
_CONTEXT = {"queries": ["blackpink", "bts"], "titles": ["BLACKPINK dance practice"], "locale": "en"}
_BODIES: tuple[tuple[int, dict[str, Any]], ...] = (
    (0, {"query": "bts"}),
    (0, {"query": "bts", "context": _CONTEXT, "client_id": "c-17", "rewrites": 2, "deadline_ms": 50}),
    (0, {"batch": [{"query": "bts"}, {"query": "rice", "context": _CONTEXT}], "rewrites": 4, "deadline_ms": 20.5}),
    (1, {"query": "lion dance", "context": _CONTEXT, "client_id": "c", "session_id": "s-4", "depth": 5, "explain": True}),
    (1, {"query": "how to cook rice", "rewrites": 3}),
    (1, {"query": "نودلز 辛ラーメン 🍜", "context": {"titles": ["ß ﷺ İ"]}}),
    (2, {"query": "bts", "rewrite": "bts dance practice", "depth": 5}),
    (2, {"query": "bts", "context": _CONTEXT, "deadline_ms": 30}),
)
ANSWERS: tuple[Any, ...] = (
    ["music video"], [], ["lion dance", "red lion"], ["x" * 121], ["a\u202eb"], ["a\nb"], None, 7, [None], [float("nan")],
    {"a": 1}, [""], ["\ud800"], ["a"] * 5, "text", [["a"]], ["x" * 10_000], [" a"], ["rice "],
)  # fmt: skip
"""What the rewriter's process says, chosen by the query: it is no more to be trusted than the client."""


def make_config(folder: Path, rewriter: Rewriter) -> ServeConfig:
    """A platform of five hundred documents with a champion, in `folder`."""
    catalogue = make_world(WorldConfig(seed=2, videos=500, entities=20)).catalogue
    write_catalogue(catalogue, folder / "documents.parquet")
    registry, spec_text = Registry(folder / "registry"), default_spec().model_dump_json()
    spec = registry.save("spec", lambda f: (f / "fusion.yaml").write_text(spec_text) and None, {})
    relevance, policy = registry.save("relevance", cold_start(catalogue).save, {}), registry.save("policy", rewriter.save, {})
    registry.promote(Candidate(policy.hash, relevance.hash, spec.hash), expected=None, reason="fuzz", evidence=None)
    return ServeConfig.model_validate(
        {
            "registry": folder / "registry",
            "documents": folder / "documents.parquet",
            "deadlines": {"recall": 1_000, "rawrank": 1_000, "finerank": 1_000},
            "rewriter": {"max_wait_ms": 0, "blocklist": ["lion"]},
            "limits": {"body_bytes": 8_192},
            "log": {
                "folder": folder / "log",
                "insecure": True,
                "query_text": True,
                "counterfactual_share": 0.05,
                "rotate_bytes": 2**16,
            },
        }
    )


def small_rewriter() -> Rewriter:
    """Random weights, bytes as its alphabet: its tokens can spell anything."""
    texts = [t for q, body in _BODIES for t in (body.get("query", "rice"), "bts dance practice", "red lion trailer")] * 5
    return new_small_decoder(texts, seed=1, vocabulary=400, width=16, layers=1, heads=2)


@dataclass(eq=False)
class _Answering:
    """A rewriter's process that says anything."""

    template: TemplateConfig = field(default_factory=TemplateConfig)

    async def ask(self, queries: Sequence[Query], n: int) -> list[Any]:
        if len(queries) == 1 and queries[0].text == "music video":  # the probe
            return [["music"]]
        return [ANSWERS[zlib.crc32(q.text.encode("utf-8", "replace")) % len(ANSWERS)] for q in queries]

    def kill(self) -> None:
        pass


class Bodies:
    """Request bodies: one in ten through the whole application; the others through the edge, the models, prompt and cache key.

    The first byte is not part of the body: it chooses route, pieces and headers.
    """

    words = JSON_WORDS + NUMBERS + TEXTS
    cpu_seconds = 2.0
    limit = 10_000
    deep = 10

    def __init__(self, config: ServeConfig, rewriter: Rewriter) -> None:
        self.seeds = [bytes([route + 3 * k]) + json.dumps(body).encode() for k, (route, body) in enumerate(_BODIES)]
        self._config, self._rewriter = config, rewriter
        self._template = rewriter.template
        marks = rewriter.tokenizer.convert_tokens_to_ids([TITLE, EARLIER, QUERY, REWRITE])
        self._title, self._earlier, self._query, self._rewrite = marks
        special = set(rewriter.tokenizer.get_added_vocab().values()) | set(rewriter.tokenizer.all_special_ids)
        self._structure = special
        self._hasher = Hasher("salt")
        memory = MemoryCache(1_000, 60)

        async def start() -> _Answering:
            return _Answering()

        def made(policy: str, folder: Path) -> PolicyRewriter:
            return PolicyRewriter(policy, start, config.rewriter, memory)

        self._app = build_app(config, made)
        self._edge = Edge(self._inner, config.limits, self._app.state.service.metrics, frozenset(ROUTES))
        self._outcome = ""
        self._runner = asyncio.Runner()
        self._loop = self._runner.get_loop()
        self._context = self._app.router.lifespan_context(self._app)
        self._loop.run_until_complete(self._context.__aenter__())

    def close(self) -> None:
        self._loop.run_until_complete(self._context.__aexit__(None, None, None))
        self._runner.close()

    def __call__(self, data: bytes) -> str:
        control, body = (data[0], data[1:]) if data else (0, b"")
        route = ROUTES[control % 3]
        if zlib.crc32(data) % self.deep == 0:
            return self._loop.run_until_complete(self._through(route, control, body))
        self._outcome = "refused by the edge"
        status, _, _ = self._loop.run_until_complete(_exchange(self._edge, route, control, body))
        must(status in {200, 413, 422}, f"the edge says {status}")
        return self._outcome

    async def _through(self, route: str, control: int, body: bytes) -> str:
        status, headers, answer = await _exchange(self._app, route, control, body)
        must(status is not None and status < 500, f"{route} says {status}: {answer[:300]!r}")
        told = json.loads(answer, parse_constant=_no_constant)
        if status != 200:
            must(headers.get(b"content-type") == MEDIA_TYPE.encode(), f"an error of type {headers.get(b'content-type')!r}")
            must(told["status"] == status and bool(told["title"]) and told["type"] == "about:blank", "no problem details")
            return f"app {status}"
        if route == "/v1/rewrite":
            texts = [t for r in told["results"] for t in r["rewrites"]]
            must(all(len(r["rewrites"]) <= MAX_TEXTS for r in told["results"]), "too many rewrites")
        else:
            texts, results = told["rewrites"], told["results"]
            must(len({r["id"] for r in results}) == len(results) <= self._config.limits.depth, "a result stands twice")
            must([r["rank"] for r in results] == list(range(1, len(results) + 1)), "ranks are not 1, 2, ...")
            must(all(a["score"] >= b["score"] for a, b in zip(results, results[1:], strict=False)), "scores rise")
        must(all(map(is_rewrite, texts)), f"not clean: {texts!r:.200}")
        return "app 200"

    async def _inner(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        self._outcome = self._understood(ROUTES.index(scope["path"]), message["body"])
        await Response(status_code=200 if self._outcome == "taken" else 422)(scope, receive, send)

    def _understood(self, route: int, body: bytes) -> str:
        """As the application's routes do it, up to the point where the process and the ranker are asked."""
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            return "no JSON"
        try:
            wired = _MODELS[route].validate_python(value, from_attributes=True)
        except ValidationError as error:
            must(len(error.errors()) > 0, "refused without a reason")
            return "refused"
        limits = self._config.limits
        try:
            queries = [read_query(w, limits, "body") for w in (wired.batch if isinstance(wired, RewriteBatch) else [wired])]
            if isinstance(wired, SearchRequest | ExplainRequest):
                check_depth(wired.depth, limits)
        except ProblemError as error:
            must(400 <= error.status < 500 and bool(json.dumps(error.errors)), "a refusal that is none")
            return "over a limit"
        for query in queries:
            self._asked_for(query, getattr(wired, "rewrites", 1))
        must(assign_arm(wired.client_id or "nobody", self._config.arms) in STAGES_OF, "no arm")
        must(len(self._hasher(wired.client_id)) == 32, "no hash")
        if isinstance(wired, ExplainRequest) and wired.rewrite is not None:
            given = clean(wired.rewrite).text
            must(not given or is_rewrite(given), f"the given rewrite is not clean: {given!r:.200}")
        return "taken"

    def _asked_for(self, query: Query, n: int) -> None:
        config = self._template.config
        asked = canonical(query, config)
        must(canonical(asked, config) == asked, "the canonical form of a canonical query is another")
        key = cache_key(asked, "policy", config, n)
        must(re.fullmatch(r"[0-9a-f]{64}", key) is not None, "no cache key")
        line = json.dumps({"id": 1, "n": n, "queries": [query_to_json(asked)]}).encode()
        must(b"\n" not in line, "a request of two lines to the process")
        (q,) = json.loads(line)["queries"]
        must(query_from_json(q) == asked, "the process is asked something else")
        try:
            ids = self._template.encode(asked)
        except PromptTooLongError:
            return
        # The key stands for the prompt, so the prompt must not depend on what the key leaves out.
        must(ids == self._template.encode(query), "two prompts under one cache key")
        self._prompt(ids, asked)

    def _prompt(self, ids: list[int], asked: Query) -> None:
        marks = [i for i in ids if i in self._structure]
        if ids[0] == self._rewrite:  # a locale stands behind it
            must(bool(asked.context.locale.strip()), "a locale that nobody gave")
            del marks[0]
        titles, earlier = marks.count(self._title), marks.count(self._earlier)
        expected = [self._title] * titles + [self._earlier] * earlier + [self._query, self._rewrite]
        must(marks == expected and ids[-1] == self._rewrite, "a text changed the prompt's structure")
        config = self._template.config
        must(titles <= min(config.titles, len(asked.context.titles)), "a title too many")
        must(earlier <= min(config.queries, len(asked.context.queries)), "an earlier query too many")
        must(len(ids) <= config.max_tokens, "a prompt too long")


async def _exchange(app: Any, route: str, control: int, body: bytes) -> tuple[int | None, dict[bytes, bytes], bytes]:
    """One POST; the control byte chooses in how many pieces it comes and what its headers say."""
    pieces = 1 + control // 3 % 4
    step = max(1, -(-len(body) // pieces))
    parts = [body[i : i + step] for i in range(0, len(body), step)] or [b""]
    messages = [{"type": "http.request", "body": p, "more_body": k + 1 < len(parts)} for k, p in enumerate(parts)]
    kinds = (b"application/json", b"application/json; charset=utf-8", b"application/problem+json", b"text/plain", b"\xff")
    headers = [(b"content-type", kinds[max(0, control // 48 - 1) % len(kinds)])]
    if control & 1:
        headers.append((b"content-length", str(len(body)).encode()))
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": route,
        "raw_path": route.encode(), "root_path": "", "scheme": "http", "query_string": b"", "headers": headers,
        "client": ("client", 1), "server": ("server", 80), "state": {},
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    # What the framework answers with 500 it raises too: the failure has the traceback that tells.
    await app(scope, receive, send)
    start = sent[0] if sent else {}
    answer = b"".join(m.get("body", b"") for m in sent if m["type"] == "http.response.body")
    return start.get("status"), dict(start.get("headers", ())), answer


def _no_constant(name: str) -> None:
    raise BrokenError(f"{name} in an answer")


# --- what the rewriter says ---------------------------------------------------------------------------------------------------

_QUERIES = [Query("lion"), Query("rice")]
_SAID: tuple[tuple[int, bytes], ...] = (
    (0, b'{"id": 1, "rewrites": [["red lion trailer"], ["how to cook rice", "rice"]]}\n'),
    (0, b'{"id": 1, "rewrites": [[], []]}\n'),
    (0, b'{"id": 1, "rewrites": [["x y", "a b", "c d", "e f"], ["music video"]]}\n{"id": 2}\n'),
    (1, json.dumps({"ready": TemplateConfig().to_json()}).encode() + b"\n"),
    (1, b'{"failed": "OSError: no such folder"}\n'),
    (1, b'{"failed": "OSError: \\udcff"}\n'),
    (1, b'{"ready": "' + b"[" * 3_000 + b'"}\n'),
    (2, bytes(range(40))),
    (2, b"\x00\x50\x00\x61\x00\x73\x00\x04"),
    (3, b"red lion trailer"),
    (3, b"  how to   cook rice\nand more"),
    (3, ("word " * 30).encode()),
    (3, "نودلز 辛ラーメン 🍜 e\u0301".encode()),
)
_WORKER_WORDS = (
    b'"id"', b'"rewrites"', b'"ready"', b'"failed"', b'"format"', b'"max_tokens"', b'"[' + b"[" * 3_000 + b'"', b'"{}"',
    b'"null"', b'"1"', b'["\\u202e"]', b'[["a"],["b"]]', b'["nude"]', b"\n",
)  # fmt: skip


class Lines:
    """What a rewriter's process, or its model, says, on its way to a rewrite that is served.

    The first byte chooses where it comes in: 0 an answer on the socket, 1 the greeting, 2 token ids, 3 text.
    """

    words = _WORKER_WORDS + JSON_WORDS + NUMBERS + TEXTS
    cpu_seconds = 1.0
    limit = 12_000
    deep = 0
    blocked = ("nude", "lion")

    def __init__(self, rewriter: Rewriter) -> None:
        self.seeds = [bytes([mode]) + said for mode, said in _SAID]
        self._rewriter = rewriter
        # Some models have rows beyond their tokenizer's last token.
        self._vocabulary = len(rewriter.tokenizer) + 8
        self._loop = asyncio.new_event_loop()
        self._settings = RewriterSettings(blocklist=self.blocked)

    def close(self) -> None:
        self._loop.close()

    def __call__(self, data: bytes) -> str:
        mode, said = (data[0] % 4, data[1:]) if data else (0, b"")
        return (self._answer, self._greeting, self._tokens, self._text)[mode](said)

    def _reader(self, said: bytes) -> asyncio.StreamReader:
        reader = asyncio.StreamReader(_LINE_LIMIT, self._loop)
        reader.feed_data(said)
        reader.feed_eof()
        return reader

    def _answer(self, said: bytes) -> str:
        process = PolicyProcess(None, self._reader(said), _Deaf(), TemplateConfig())  # type: ignore[arg-type]
        try:
            answers = _driven(process.ask(_QUERIES, 2))
        except WorkerError as error:
            check_sayable(error)
            return "no answer"
        must(len(answers) == len(_QUERIES), "answers to other questions")
        usable = [self._served(q, a) for q, a in zip(_QUERIES, answers, strict=True)]
        return "answer" if any(usable) else "garbage"

    def _served(self, query: Query, answer: Any) -> bool:
        texts = sound(answer)
        if texts is None:
            return False
        must(isinstance(texts, tuple) and len(texts) <= MAX_TEXTS, f"{len(texts)} rewrites")
        must(all(map(is_rewrite, texts)), f"served though not clean: {texts!r:.300}")
        rewriter = PolicyRewriter("p", None, self._settings, MemoryCache(1, 1))  # type: ignore[arg-type]
        found = rewriter._judged(query, texts, "ok")
        must(set(found.texts) <= set(texts), "a rewrite from nowhere")
        for text in found.texts:
            must(not set(words(text)) & (set(self.blocked) - set(words(query.text))), f"blocked, and served: {text!r}")
        return bool(texts)

    def _greeting(self, said: bytes) -> str:
        try:
            template = _driven(_greeting(self._reader(said), Path("policy")))
        except WorkerError as error:
            check_sayable(error)
            return "no greeting"
        must(isinstance(template, TemplateConfig), "no template")
        numbers = [getattr(template, name) for name in ("max_tokens", "titles", "queries", "part_tokens", "format")]
        must(all(type(v) is int and v >= 0 for v in numbers), f"a template of {template}")
        texts = [getattr(template, name) for name in ("home_locale", "kind", "source", "message", "instruction", "end")]
        must(all(type(v) is str for v in texts) and type(template.examples) is tuple, f"a template of {template}")
        return "greeting"

    def _tokens(self, said: bytes) -> str:
        said = said[:128]
        ids = tuple((said[i] * 256 + said[i + 1]) % self._vocabulary for i in range(0, len(said) - 1, 2))
        made = as_rewrite(self._rewriter, Completion(ids, (-1.0,) * len(ids)))
        must(made.token_ids == ids, "other tokens than were generated")
        return self._cleaned(made.text)

    def _text(self, said: bytes) -> str:
        text = said.decode("utf-8", "surrogateescape")
        self._served(_QUERIES[0], [text])
        cleaned = clean(text)
        must(cleaned.malformed or cleaned.text == " ".join(text.split()), "changed, and not said so")
        return self._cleaned(cleaned.text)

    def _cleaned(self, text: str) -> str:
        if not text:
            return "no rewrite"
        must(is_rewrite(text), f"not clean: {text!r:.200}")
        again = clean(text)
        must(again.text == text and not again.malformed, f"cleaned twice it is another: {text!r:.200}")
        # Trainer, gate and server must agree on what a rewrite is.
        must(self._served(Query("zebra"), [text]), f"made by the rewriter, refused by the server: {text!r:.200}")
        return "rewrite"


class _Deaf:
    def write(self, data: bytes) -> None:
        must(data.count(b"\n") == 1 and data.endswith(b"\n"), "more than a line")

    async def drain(self) -> None:
        pass


def _driven(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs what never has to wait."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    coroutine.close()
    raise BrokenError("waits for more, though there is none")


def check_sayable(error: Exception) -> None:
    """An error's text goes to logs, terminals and probes."""
    try:
        str(error).encode()
    except UnicodeEncodeError as wrong:
        raise BrokenError(f"the error's text cannot be written: {str(error)!r:.200}") from wrong


# --- fusion specs -------------------------------------------------------------------------------------------------------------

_SPECS = (
    """\
rawrank:
  original: [{signal: dense, eps: 0.01}]
finerank:
  original:
    - {signal: relevance, eps: 0.001}
    - {signal: prior, eps: 0.05, exponent: 0.3}
  rewrite:
    - {signal: relevance, exponent: 0.4}
    - {signal: other, relative_to: constant, n: 0.5, exponent: 1}
""",
    """\
version: 1
recall: {original_candidates: 80, rewrite_candidates: 0, use_rewrite: no}
rawrank: {original: [{signal: dense, eps: 0.01}]}
finerank: {original: [{signal: relevance, eps: 1e-3, top: 2}]}
depths: {finerank: 20, protected: 30}
reward: {stage_weights: {rawrank: 0.5}, recall_weight: .1}
""",
    """\
version: 2
rawrank: {original: [{signal: dense, eps: 0.01}]}
finerank: {original: [{signal: relevance, eps: 1e-3}], rewrite: [{signal: relevance}]}
reward: {finerank_weight: 1, reach_weight: 0, zero_weight_reason: an ablation}
""",
    """\
rawrank:
    original:
    -   signal: "dense"
        eps: 0.01
finerank:
    original:
    -   signal: 'relevance'   # a comment
        eps: 0.001
    rewrite:
    -   signal: relevance
        lo: 0.25
        hi: 4
        exponent: 0.5
""",
    '{"rawrank": {"original": [{"signal": "a", "eps": 0.1}]}, "finerank": {"original": [{"signal": "b", "eps": 0.1}]}}',
)


class Specs:
    """Fusion specs as files; seven in eight with what is no UTF-8 replaced, as nothing of the others is read."""

    words = YAML_WORDS + NUMBERS + TEXTS
    cpu_seconds = 2.0
    limit = 6_000
    deep = 0

    def __init__(self) -> None:
        self.seeds = [text.encode() for text in _SPECS]
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "spec.yaml"
        self._line = re.compile(re.escape(str(self._path)) + r":(\d+): \S")

    def close(self) -> None:
        self._folder.cleanup()

    def __call__(self, data: bytes) -> str:
        if zlib.crc32(data) % 8:
            data = data.decode("utf-8", "replace").encode()
        self._path.write_bytes(data)
        try:
            spec = load_spec(self._path)
        except SpecError as error:
            return self._refused(str(error), data)
        must(isinstance(spec, FusionSpec), "no spec")
        again = parse_spec(spec.model_dump_json())
        must(again == spec and again.spec_hash == spec.spec_hash, "written out and read again it is another")
        for stage in spec.stages.values():
            exponents = {s.signal: s.exponent for s in stage.original}
            for o in stage.original:
                must(0 < o.eps < o.top < math.inf and 0 < o.exponent < math.inf, f"an original factor of {o}")
            for r in stage.rewrite:
                must(0 < r.lo <= 1 <= r.hi < math.inf and 0 < r.eps < math.inf, f"a rewrite factor of {r}")
                must(0 <= r.exponent < math.inf, f"a rewrite factor of {r}")
                ratio = r.relative_to == "original" and r.signal in exponents
                must(not ratio or r.exponent <= exponents[r.signal] / 2, "the original signal cancels out")
        must(spec.depths.protected >= spec.depths.finerank >= 1, "documents that the rewrite can take away")
        return "spec"

    def _refused(self, message: str, data: bytes) -> str:
        check_sayable(SpecError(message))
        if message.startswith(f"{self._path}: cannot read the fusion spec: "):
            return "not UTF-8"
        lines = message.split("\n")
        longest = 1 + len(re.findall(r"\r\n|[\n\r\x85\u2028\u2029]", data.decode("utf-8")))
        for line in lines:
            found = self._line.match(line)
            must(found is not None and 1 <= int(found[1]) <= longest, f"an error without file and line: {message!r:.300}")
        # A file may come from anywhere; what a terminal obeys must not come through.
        must(all(unicodedata.category(c) != "Cc" for line in lines for c in line), f"control characters: {message!r:.300}")
        return "refused"
