"""A small server that really loads the folders it is told to load, and really samples from them."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from corewrite.domain import Query
from corewrite.rewriter import Completion, PromptTemplate, Rewriter, TemplateChoice, load_rewriter, response_log_probs
from corewrite.training.samplers import server_client
from corewrite.training.samplers.protocol import StalePolicyError
from corewrite.training.samplers.server import ServerEngine
from corewrite.training.samplers.server_client import SamplingServerError

pytest.importorskip("httpx")
LIMIT = 1e-4
SAMPLING = {
    "temperature": 0.3, "top_p": 0.5, "top_k": 2, "min_p": 0.2, "repetition_penalty": 1.5, "presence_penalty": 1.0,
    "frequency_penalty": 1.0,
}  # fmt: skip
"""Defaults that a model's folder might bring: whoever leaves one out of a request gets a bent distribution."""
NEUTRAL = {
    "temperature": 1, "top_p": 1, "top_k": 0, "min_p": 0, "repetition_penalty": 1, "presence_penalty": 0,
    "frequency_penalty": 0,
}  # fmt: skip


class SmallServer(ThreadingHTTPServer):
    """Speaks as much of vLLM's protocol as the engine needs.

    `faults` are used up by requests for samples, one each: a status, "drop" (hang up), "garbage", or a function of the choices
    answered; None is no fault. `reload` replaces how weights are loaded.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, base: Rewriter) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.base = base
        self.model = base.model
        self.adapters: dict[str, object] = {}
        self.faults: list = []
        self.reload = lambda folder: load_rewriter(folder).model
        self.seen: list[tuple[str, dict, str]] = []
        self.busy = self.busiest = 0
        self.lock = threading.Lock()
        self.delay = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def bodies(self, path: str) -> list[dict]:
        return [body for p, body, _ in self.seen if p == path]

    def completions(self) -> list[dict]:
        """Requests for samples, those of the probe left out."""
        return [body for body in self.bodies("/v1/completions") if body["max_tokens"] > 1]

    def models(self) -> dict:
        return {"data": [{"id": "base"}, *({"id": name} for name in self.adapters)]}

    def collective_rpc(self, body: dict) -> str:
        assert body["method"] == "reload_weights"
        self.model = self.reload(Path(body["kwargs"]["weights_path"]))
        return json.dumps({"results": [None]})

    def load_lora_adapter(self, body: dict) -> str | int:
        from peft import PeftModel

        if body["lora_name"] in self.adapters:
            return 400
        twin = self.base.copy().model
        self.adapters[body["lora_name"]] = PeftModel.from_pretrained(twin, body["lora_path"]).eval()
        return "Success"

    def unload_lora_adapter(self, body: dict) -> str | int:
        return "Success" if self.adapters.pop(body["lora_name"], None) else 404

    @torch.no_grad()
    def complete(self, body: dict) -> dict | int:
        model = self.model if body["model"] == "base" else self.adapters.get(body["model"])
        if model is None:
            return 404
        assert {k: body.get(k, v) for k, v in SAMPLING.items()} == NEUTRAL
        choices, known = [], {}
        for i in range(body["n"]):
            draw = torch.Generator().manual_seed(body["seed"] + i)
            ids, values = [], []
            while len(ids) < body["max_tokens"] and (not ids or ids[-1] not in body["stop_token_ids"]):
                so_far = tuple(body["prompt"] + ids)
                if so_far not in known:
                    known[so_far] = (
                        model(input_ids=torch.tensor([so_far], device=model.device)).logits[0, -1].log_softmax(-1).cpu()
                    )
                log_probs = known[so_far]
                ids.append(int(torch.multinomial(log_probs.exp(), 1, generator=draw)))
                values.append(float(log_probs[ids[-1]]))
            choice = {"index": i, "text": "not to be read", "finish_reason": "length"}
            if body["return_token_ids"]:
                choice |= {"token_ids": ids, "prompt_token_ids": body["prompt"]}
            choices.append(choice | ({"logprobs": {"token_logprobs": values}} if body["logprobs"] else {}))
        return {"choices": choices[::-1]}  # the index tells the order, not the place


class Handler(BaseHTTPRequestHandler):
    server: SmallServer

    def do_GET(self) -> None:
        self.server.seen.append((self.path, {}, self.headers.get("Authorization", "")))
        self.say(200 if self.path == "/v1/models" else 404, json.dumps(self.server.models()))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
        server = self.server
        with server.lock:
            server.seen.append((self.path, body, self.headers.get("Authorization", "")))
            sampled = self.path == "/v1/completions" and body["max_tokens"] > 1
            fault = server.faults.pop(0) if sampled and server.faults else None
            server.busy += 1
            server.busiest = max(server.busiest, server.busy)
        time.sleep(server.delay)
        with server.lock:  # before the answer: the client may be back before anything after it runs
            server.busy -= 1
        self.answer(body, fault)

    def answer(self, body: dict, fault) -> None:
        if fault == "drop":
            self.close_connection = True
            return
        if isinstance(fault, int):
            return self.say(fault, f"the server says {fault}. " + "x" * 1000)
        if fault == "garbage":
            return self.say(200, "<html>a proxy's page</html>")
        route = {
            "/v1/completions": self.server.complete,
            "/collective_rpc": self.server.collective_rpc,
            "/reset_prefix_cache?reset_running_requests=true": lambda body: "",
            "/v1/load_lora_adapter": self.server.load_lora_adapter,
            "/v1/unload_lora_adapter": self.server.unload_lora_adapter,
        }.get(self.path, lambda body: 404)
        with self.server.lock:
            answer = route(body)
        if callable(fault):
            fault(answer["choices"])
        status = answer if isinstance(answer, int) else 200
        self.say(status, json.dumps(answer) if isinstance(answer, dict) else str(answer))

    def say(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args) -> None: ...


@contextmanager
def serving(base: Rewriter):
    server = SmallServer(base)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def server(start):
    with serving(start) as server:
        yield server


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(server_client, "_FIRST_WAIT", 0.001)
    monkeypatch.delenv("COREWRITE_SERVER_KEY", raising=False)


def changed(policy: Rewriter, seed: int, size: float = 0.1) -> Rewriter:
    """The policy after training: every weight has moved."""
    twin = policy.copy()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in twin.model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=draw).to(parameter.device)
    return twin


@pytest.fixture
def policy(start):
    return changed(start, 1)


@pytest.fixture
def engine(server, policy, tmp_path):
    engine = ServerEngine(
        server.url, tmp_path / "sync", "weights", policy.tokenizer.eos_token_id, log_prob_mismatch_limit=LIMIT
    )
    yield engine
    engine.close()


def build_prompts(policy: Rewriter) -> list[list[int]]:
    return [policy.template.encode(Query(text)) for text in ("cat", "dog show", "news", "fish")]


def drawn(engine: ServerEngine, policy: Rewriter, version: str, **kwargs) -> list[list[Completion]]:
    prompts = build_prompts(policy)
    settings = {"keys": [11, 12, 13, 14], "seed": 5, "phase": 2, "max_new_tokens": 6} | kwargs
    return engine.sample(prompts, 3, expected=version, **settings)


def assert_scored_as_by(model, prompts, rows) -> None:
    flat = [(x, c) for x, row in zip(prompts, rows, strict=True) for c in row]
    with torch.no_grad():
        scores = response_log_probs(model, [x for x, _ in flat], [c.token_ids for _, c in flat])
    for score, (_, c) in zip(scores, flat, strict=True):
        assert len(c.log_probs) == len(c.token_ids)
        assert torch.tensor(c.log_probs) == pytest.approx(score[: len(c.token_ids)].cpu().numpy(), abs=1e-4)


def test_ids_and_log_probabilities_are_those_of_the_policy(server, engine, policy):
    sync = engine.sync(policy)
    assert sync.version == policy.policy_hash
    folder = engine.model_folder / f"policy-{sync.version}"
    assert sync.bytes == (folder / "model.safetensors").stat().st_size > 4 * policy.parameters
    assert server.bodies("/collective_rpc") == [{"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}]
    told = [path for path, _, _ in server.seen if "rpc" in path or "cache" in path]
    assert told == ["/collective_rpc", "/reset_prefix_cache?reset_running_requests=true"]

    rows = drawn(engine, policy, sync.version)
    assert [len(row) for row in rows] == [3] * 4
    assert len({c.token_ids for row in rows for c in row}) > 6
    ended = [c.token_ids[-1] == policy.tokenizer.eos_token_id for row in rows for c in row]
    assert any(ended) and not all(ended)
    assert_scored_as_by(policy.model, build_prompts(policy), rows)


def test_the_order_of_choices_is_that_of_their_index(server, engine, policy):
    version = engine.sync(policy).version
    row = drawn(engine, policy, version)[0]
    asked = next(body for body in server.completions() if body["prompt"] == build_prompts(policy)[0])
    third, second, first = server.complete(asked)["choices"]
    assert [first["index"], third["index"]] == [0, 2]
    assert [list(c.token_ids) for c in row] == [c["token_ids"] for c in (first, second, third)]


def test_draws_are_keyed_by_seed_phase_and_key_not_by_place(server, engine, policy):
    version = engine.sync(policy).version
    prompts = build_prompts(policy)
    rows = drawn(engine, policy, version)
    backwards = engine.sample(
        prompts[::-1], 3, expected=version, keys=[14, 13, 12, 11], seed=5, phase=2, max_new_tokens=6
    )  # fmt: skip
    assert backwards[::-1] == rows
    for other in ({"seed": 6}, {"phase": 3}, {"keys": [15, 16, 17, 18]}):
        assert drawn(engine, policy, version, **other) != rows
    seeds = {b["seed"] for b in server.completions()}
    assert len(seeds) == 4 + 3 * 4 and max(seeds) < 2**53


def test_a_sync_leaves_only_its_own_version_and_what_is_not_ours(engine, policy, start):
    first = engine.sync(policy)
    stranger = engine.model_folder / "policy-of-somebody-else"
    stranger.mkdir()
    torn = engine.model_folder / f".policy-{'0' * 64}.partial"
    torn.mkdir()
    second = engine.sync(changed(start, 2))
    assert first.version != second.version
    assert {p.name for p in engine.model_folder.iterdir()} == {f"policy-{second.version}", stranger.name}
    assert drawn(engine, policy, second.version)


def test_a_policy_that_cannot_be_written_leaves_nothing_half(engine, policy, monkeypatch):
    version = engine.sync(policy).version

    def full(folder):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(policy, "save", full)
    with pytest.raises(OSError, match="No space"):
        engine.sync(policy)
    assert [p.name for p in engine.model_folder.iterdir()] == [f"policy-{version}"]
    with pytest.raises(StalePolicyError, match="none"):
        drawn(engine, policy, version)


@pytest.mark.parametrize("part", ["nothing", "but one layer", "but the last norm"])
def test_a_server_that_keeps_old_weights_is_caught(server, engine, policy, start, part):
    engine.sync(start)
    left_out = {"nothing": "", "but one layer": "layers.1", "but the last norm": "model.norm"}[part]

    def reload(folder):
        model, old = load_rewriter(folder).model, start.model.state_dict()
        model.load_state_dict({k: v for k, v in old.items() if left_out in k}, strict=False)
        return model

    server.reload = reload
    with pytest.raises(SamplingServerError) as caught:
        engine.sync(policy)
    message = str(caught.value)
    assert server.url in message and policy.policy_hash in message and "0.0001" in message
    difference = float(message.split("up to ")[1].split(" nats")[0])
    assert LIMIT < difference < 50
    for version in (policy.policy_hash, start.policy_hash):
        with pytest.raises(StalePolicyError, match="none"):
            drawn(engine, policy, version)
    server.reload = lambda folder: load_rewriter(folder).model
    assert drawn(engine, policy, engine.sync(policy).version)


def test_the_same_weights_loaded_again_pass(server, engine, policy):
    assert engine.sync(policy) == engine.sync(policy)
    assert engine.sync(changed(policy, 3, 0.0)).version == policy.policy_hash


def test_only_the_version_it_holds_is_sampled(server, engine, policy, start):
    with pytest.raises(StalePolicyError, match=f"none, not {policy.policy_hash}: sync it first"):
        drawn(engine, policy, policy.policy_hash)
    version = engine.sync(policy).version
    with pytest.raises(StalePolicyError, match=f"{version}, not {start.policy_hash}"):
        drawn(engine, policy, start.policy_hash)
    assert not server.completions()


def test_a_server_that_comes_back_with_other_weights_is_caught(server, engine, policy, start):
    version = engine.sync(policy).version

    def restarts(choices):
        server.model = start.model

    server.faults = ["drop", restarts]
    with pytest.raises(StalePolicyError, match=f"lost policy {version}.*restarted"):
        drawn(engine, policy, version)
    with pytest.raises(StalePolicyError, match="none"):
        drawn(engine, policy, version)


@pytest.mark.parametrize("faults", [[500, 500], [429], [503, "drop"], ["drop", 502, 500, 429]])
def test_what_may_pass_is_asked_again_in_the_same_words(server, engine, policy, faults):
    version = engine.sync(policy).version
    expected = drawn(engine, policy, version)
    server.seen.clear()
    server.faults = list(faults)
    prompt = build_prompts(policy)[0]
    again = engine.sample([prompt], 3, expected=version, keys=[11], seed=5, phase=2, max_new_tokens=6)
    assert again == expected[:1]
    sent = server.completions()
    assert len(sent) == len(faults) + 1 and all(body == sent[0] for body in sent)


def test_a_server_that_dies_midway_ends_in_one_clear_error(server, engine, policy):
    version = engine.sync(policy).version
    server.faults = [None, None] + ["drop"] * 100
    with pytest.raises(
        SamplingServerError, match=rf"POST {server.url}/v1/completions, tried 5 times: no answer, \w+Error"
    ) as caught:
        drawn(engine, policy, version)
    assert len(str(caught.value)) < 400
    server.faults = []
    assert drawn(engine, policy, version)  # nothing was lost: the server still holds the policy


def test_no_server_at_all(policy, tmp_path, start):
    with serving(start) as gone:
        url = gone.url
    engine = ServerEngine(url, tmp_path, "weights", policy.tokenizer.eos_token_id)
    with pytest.raises(SamplingServerError, match=f"GET {url}/v1/models, tried 5 times: no answer, ConnectError"):
        engine.sync(policy)


def test_what_will_not_pass_is_not_asked_again(server, engine, policy):
    version = engine.sync(policy).version
    server.faults = [400] * 100
    with pytest.raises(SamplingServerError) as caught:
        engine.sample(build_prompts(policy)[:1], 3, expected=version, keys=[1], seed=5, phase=2, max_new_tokens=6)
    start = "the server says 400. "
    assert str(caught.value) == f"POST {server.url}/v1/completions: status 400: {start}{'x' * (200 - len(start))}"
    assert len(server.completions()) == 1


def spoil(**fields):
    return lambda choices: choices[1].update(fields)


def logprobs(*values):
    return {"token_logprobs": list(values)}


SPOILT = {
    "garbage": ("garbage", "no JSON: <html>a proxy's page"),
    "too few": (lambda choices: choices.pop(), r"choices \[2, 1\], asked for were 3"),
    "twice": (spoil(index=0), r"choices \[2, 0, 0\], asked for were 3"),
    "no ids": (lambda choices: choices[1].pop("token_ids"), "no token_ids.*use a server that knows return_token_ids"),
    "text ids": (spoil(token_ids=["token_id:5"]), "token id 'token_id:5' is not in the policy's vocabulary"),
    "true": (spoil(token_ids=[True, 5, 5, 5, 5, 5]), "token id True"),
    "too large": (spoil(token_ids=[5, 295, 5, 5, 5, 5]), "token id 295 is not in the policy's vocabulary of 295"),
    "negative": (spoil(token_ids=[-1]), "token id -1"),
    "empty": (spoil(token_ids=[]), "0 tokens, asked for were 1 to 6"),
    "too long": (spoil(token_ids=[5] * 7), "7 tokens, asked for were 1 to 6"),
    "goes on": (spoil(token_ids=[5, 1, 5, 5, 5, 5]), "ends neither at the limit of 6 nor where token 1 first comes"),
    "end left out": (spoil(token_ids=[5, 5], finish_reason="stop"), r"2 tokens \(finish_reason 'stop'\) ends neither"),
    "other prompt": (spoil(prompt_token_ids=[0, 5]), "changed the prompt: 2 ids"),
    "no scores": (spoil(logprobs=None), "lacks logprobs.token_logprobs"),
    "few scores": (spoil(token_ids=[5] * 6, logprobs=logprobs(-1.0)), "6 tokens lacks logprobs"),
    "null score": (spoil(token_ids=[5] * 6, logprobs=logprobs(None, -1, -1, -1, -1, -1)), "no finite number"),
    "nan score": (spoil(token_ids=[5] * 6, logprobs=logprobs(float("nan"), -1, -1, -1, -1, -1)), "no finite number"),
}


@pytest.fixture(scope="module")
def synced(start, tmp_path_factory):
    """A server and an engine that holds `start`, shared."""
    assert start.tokenizer.eos_token_id == 1 and start.model.config.vocab_size == 295
    with serving(start) as server:
        engine = ServerEngine(server.url, tmp_path_factory.mktemp("sync"), "weights", 1, log_prob_mismatch_limit=LIMIT)
        engine.sync(start)
        yield server, engine
        engine.close()


@pytest.mark.parametrize("name", SPOILT)
def test_an_answer_that_cannot_be_used_is_an_error_that_says_why(synced, start, name):
    server, engine = synced
    fault, message = SPOILT[name]
    server.seen.clear()
    server.faults = [fault]
    settings = {"keys": [1], "seed": 5, "phase": 2, "max_new_tokens": 6}
    with pytest.raises(SamplingServerError, match=f"POST {server.url}/v1/completions: .*{message}"):
        engine.sample(build_prompts(start)[:1], 3, expected=start.policy_hash, **settings)
    assert len(server.completions()) == 1
    assert len(engine.sample(build_prompts(start)[:1], 3, expected=start.policy_hash, **settings)[0]) == 3


def test_requests_under_way_are_bounded_and_progress_is_told(server, policy, tmp_path):
    engine = ServerEngine(
        server.url + "/v1/", tmp_path, "weights", policy.tokenizer.eos_token_id, log_prob_mismatch_limit=LIMIT, concurrency=3
    )  # fmt: skip
    version = engine.sync(policy).version
    server.delay, server.busiest, told = 0.05, 0, []
    prompts = build_prompts(policy) * 3
    rows = engine.sample(
        prompts, 2, expected=version, keys=range(12), seed=1, phase=0, max_new_tokens=2,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert 2 <= server.busiest <= 3
    assert told == [(i, 12) for i in range(1, 13)]
    assert [len(row) for row in rows] == [2] * 12
    assert engine.sample([], 2, expected=version, keys=[], seed=1, phase=0, max_new_tokens=2) == []


def test_a_server_that_hangs_is_left(server, policy, tmp_path):
    engine = ServerEngine(
        server.url, tmp_path, "weights", policy.tokenizer.eos_token_id, log_prob_mismatch_limit=LIMIT, timeout=0.5
    )
    version = engine.sync(policy).version
    server.delay = 0.8
    with pytest.raises(SamplingServerError, match="tried 5 times: no answer, ReadTimeout"):
        drawn(engine, policy, version)
    server.delay = 0.0
    assert drawn(engine, policy, version)


@pytest.mark.parametrize("body", [{"data": []}, {"data": ["base"]}, [], {"data": [{"id": 7}]}])
def test_a_server_without_models(server, engine, policy, body):
    server.models = lambda: body
    with pytest.raises(SamplingServerError, match="/v1/models names no models"):
        engine.sync(policy)


def test_endpoints_that_are_switched_off_say_how_to_switch_them_on(server, engine, policy):
    server.collective_rpc = lambda body: 404
    with pytest.raises(SamplingServerError, match=r"/collective_rpc: status 404.*VLLM_SERVER_DEV_MODE=1"):
        engine.sync(policy)


def test_a_diverged_policy_is_not_handed_over(server, engine, policy):
    with torch.no_grad():
        policy.model.model.norm.weight[0] = float("nan")
    with pytest.raises(ValueError, match="weights have diverged"):
        engine.sync(policy)
    assert not server.seen and not engine.model_folder.exists()


def test_the_policy_stays_in_training_mode(engine, policy):
    policy.model.train()
    engine.sync(policy)
    assert policy.model.training


def test_the_key_comes_from_the_environment_and_is_never_shown(server, policy, tmp_path, monkeypatch, caplog):
    caplog.set_level("DEBUG")
    monkeypatch.setenv("COREWRITE_SERVER_KEY", "sk-secret\n")
    engine = ServerEngine(server.url, tmp_path, "weights", policy.tokenizer.eos_token_id, log_prob_mismatch_limit=LIMIT)
    version = engine.sync(policy).version
    assert {key for _, _, key in server.seen} == {"Bearer sk-secret"}

    server.collective_rpc = lambda body: 404
    monkeypatch.setattr(
        Handler, "say", lambda self, status, text, say=Handler.say: say(self, status, f"wrong key sk-secret {text}")
    )
    with pytest.raises(SamplingServerError, match=r"wrong key \*\*\*") as caught:
        drawn(engine, policy, version)
    assert "sk-secret" not in str(caught.value) + repr(engine) + caplog.text
    monkeypatch.setenv("COREWRITE_SERVER_KEY", "sk-\nsecret")
    with pytest.raises(ValueError, match="COREWRITE_SERVER_KEY holds characters") as caught:
        ServerEngine(server.url, tmp_path, "weights", 1)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost", "http://"])
def test_an_address_that_is_none(url, tmp_path):
    with pytest.raises(ValueError, match=f"base_url '{url}' is no http address"):
        ServerEngine(url, tmp_path, "weights", 1)


def test_an_address_with_a_password(tmp_path):
    with pytest.raises(ValueError, match="COREWRITE_SERVER_KEY") as caught:
        ServerEngine("http://me:secret@localhost:8000", tmp_path, "weights", 1)
    assert "secret" not in str(caught.value)


def test_without_httpx_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "httpx", None)
    with pytest.raises(ImportError, match=r"pip install 'corewrite\[server\]'"):
        ServerEngine("http://localhost:8000", tmp_path, "weights", 1)


@pytest.fixture
def tuned(start):
    """The start policy with an adapter that does something, and a function that trains it."""
    from peft import LoraConfig, get_peft_model

    pytest.importorskip("peft")
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    torch.manual_seed(0)
    policy = Rewriter(get_peft_model(start.copy().model, config), start.tokenizer, start.template)

    def train(seed):
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in policy.model.named_parameters():
                if "lora_B" in name:
                    parameter += 0.5 * torch.randn(parameter.shape, generator=draw).to(parameter.device)

    train(1)
    return policy, train


@pytest.fixture
def adapter_engine(server, tuned, tmp_path):
    engine = ServerEngine(
        server.url, tmp_path / "sync", "adapter", tuned[0].tokenizer.eos_token_id, log_prob_mismatch_limit=LIMIT
    )
    yield engine
    engine.close()


def test_only_the_adapter_is_handed_over(server, adapter_engine, tuned):
    policy, train = tuned
    first = adapter_engine.sync(policy)
    (folder,) = adapter_engine.model_folder.iterdir()
    assert {f.name for f in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    numbers = 2 * 2 * 4 * (32 + 32)  # layers, matrices, rank, in and out
    assert 4 * numbers < first.bytes < 4 * numbers + 2_000
    rows = drawn(adapter_engine, policy, first.version)
    assert_scored_as_by(policy.model.eval(), build_prompts(policy), rows)
    assert {body["model"] for body in server.bodies("/v1/completions")} == {folder.name} == set(server.adapters)

    train(2)
    second = adapter_engine.sync(policy)
    assert set(server.adapters) == {f"policy-{second.version}"} == {p.name for p in adapter_engine.model_folder.iterdir()}
    assert server.bodies("/v1/unload_lora_adapter") == [{"lora_name": folder.name}]
    assert not server.bodies("/collective_rpc")
    assert_scored_as_by(policy.model.eval(), build_prompts(policy), drawn(adapter_engine, policy, second.version))
    with pytest.raises(StalePolicyError):
        drawn(adapter_engine, policy, first.version)


def test_an_adapter_is_loaded_anew_after_a_resume(server, adapter_engine, tuned, tmp_path):
    policy, train = tuned
    first = adapter_engine.sync(policy)
    resumed = ServerEngine(
        server.url, tmp_path / "sync", "adapter", policy.tokenizer.eos_token_id, log_prob_mismatch_limit=LIMIT
    )
    assert resumed.sync(policy) == first
    train(3)
    version = resumed.sync(policy).version
    assert set(server.adapters) == {f"policy-{version}"}


def test_an_adapter_that_does_not_arrive_is_caught(server, adapter_engine, tuned):
    policy, train = tuned
    adapter_engine.sync(policy)
    (old,) = server.adapters.values()
    load = server.load_lora_adapter

    def stale(body):
        load(body)
        server.adapters[body["lora_name"]] = old
        return "Success"

    server.load_lora_adapter = stale
    train(4)
    with pytest.raises(SamplingServerError, match=f"does not hold policy {policy.policy_hash}"):
        adapter_engine.sync(policy)
    server.load_lora_adapter = load
    version = adapter_engine.sync(policy).version
    assert set(server.adapters) == {f"policy-{version}"}


def test_an_answer_lost_after_loading_is_no_failure(server, adapter_engine, tuned):
    load = server.load_lora_adapter
    server.load_lora_adapter = lambda body: load(body) and 500
    assert adapter_engine.sync(tuned[0]).version == tuned[0].policy_hash
    assert len(server.bodies("/v1/load_lora_adapter")) == 1


def test_a_server_without_adapters_says_how_to_switch_them_on(server, adapter_engine, tuned):
    server.load_lora_adapter = lambda body: 404
    with pytest.raises(SamplingServerError, match=r"load_lora_adapter.*status 404.*VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
        adapter_engine.sync(tuned[0])


def test_a_policy_that_does_not_go_with_the_engine_is_refused(server, engine, adapter_engine, policy, tuned, tmp_path):
    with pytest.raises(ValueError, match="use reload='adapter'"):
        engine.sync(tuned[0])
    with pytest.raises(ValueError, match="use reload='weights'"):
        adapter_engine.sync(policy)
    config = TemplateChoice(kind="few_shot", max_tokens=400).config(policy.tokenizer, policy.template.config)
    few_shot = Rewriter(policy.model, policy.tokenizer, PromptTemplate(policy.tokenizer, config))
    with pytest.raises(ValueError, match=r"ends a rewrite with '\\n', a server at the tokenizer's end-of-sequence token"):
        engine.sync(few_shot)
    with pytest.raises(ValueError, match="ends with token 1, the engine expects 7"):
        ServerEngine(server.url, tmp_path, "weights", 7).sync(policy)
    assert not server.seen
