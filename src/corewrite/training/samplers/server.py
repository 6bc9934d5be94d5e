"""Sampling from an OpenAI-compatible server such as vLLM's, by token ids, its weights reloaded once per phase.

What it asks of the server, as vLLM's documentation, source and issues give it:

- `POST /v1/completions` with token ids as prompt and `return_token_ids` (vllm-project/vllm#22587).
- `reload="weights"`: `POST /collective_rpc` with `reload_weights` and a `weights_path`, then `POST /reset_prefix_cache`. Both
  are development endpoints: start the server with `VLLM_SERVER_DEV_MODE=1` and do not let others reach it.
- `reload="adapter"`: `POST /v1/load_lora_adapter` and `/v1/unload_lora_adapter`: start it with `--enable-lora`, a
  `--max-lora-rank` that fits, and `VLLM_ALLOW_RUNTIME_LORA_UPDATING=True`. Every version gets a name of its own, because a name
  used again may be answered from the prefix cache of the adapter before (vllm-project/vllm#42125). The server's base model is
  the folder that the policy's base was loaded from, its embeddings grown by the template's tokens.

A reload that is answered with 200 proves nothing (vllm-project/vllm#32718: weights of before, read from a cache), so every sync
and every call of `sample` ends with a probe: next-token log-probabilities on fixed prompts against the trainer's own.

Not run against a real server: all of it. No vLLM and no GPU was at hand; the tests run it against a small server of their own
that loads the folders and samples from them. Unknown are therefore the right `drift_limit` (the default is a guess for
bfloat16: calibrate it), the speed, servers of several processes (a reload must reach each, a probe asks whichever answers), and
which versions of vLLM answer as described. A change smaller than `drift_limit` on every probed token passes the probe.

Unlike in-process sampling, draws are keyed by (seed, phase, key) only; the server derives those of each sample and position
from that seed, so they repeat as far as its own arithmetic does.
"""

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import torch
from torch import Tensor

from corewrite.domain import Query, keyed_bits
from corewrite.rewriter import Completion, Rewriter
from corewrite.storage.durable import naming
from corewrite.training.samplers.protocol import NOBODY_WAITS, Ready, SampleProgress, StalePolicyError, Sync

API_KEY_VARIABLE = "COREWRITE_SERVER_KEY"
_ATTEMPTS = 5
_FIRST_WAIT = 0.5  # seconds, doubled at every further attempt
_CONNECT = 10.0  # seconds
_SHOWN = 200
_MOST_BYTES, _TOKEN_BYTES = 2**18, 256
"""Size of an answer at most, and what is added to it for each token."""
_OURS = re.compile(r"policy-[0-9a-f]{64}")
# Longer than a block of a prefix cache (16 tokens), so that one which outlived a reload is noticed too.
_PROBES = (
    "how to replace the rear brake pads of an old city bicycle at home without special tools",
    "best places to watch the sunrise near the sea in early spring with small children",
    "funny videos of cats and dogs playing in the snow for the first time last winter",
    "simple dinner recipes with rice, eggs and tomatoes for two people in twenty minutes",
)
_PROBE_SAMPLES = 16


class SamplingServerError(RuntimeError):
    """A sampling server that cannot be reached, refuses, answers nonsense, or does not hold what it was told to load."""


@dataclass(frozen=True)
class _Held:
    """What the server was told to hold.

    Attributes:
        version: Hash of the policy.
        model: The server's name for it.
        probes: Prompt ids to ask about.
        expected: [probes, vocabulary]: the trainer's log-probabilities of the token after each, float32.
    """

    version: str
    model: str
    probes: list[list[int]]
    expected: Tensor


class ServerEngine:
    """A `SamplingEngine` over an OpenAI-compatible server, which serves this engine alone.

    The server reads the policy from `model_folder`: a folder of this engine's own, on a disk that both see under the same path.
    An API key is taken from the environment variable `COREWRITE_SERVER_KEY` and from nowhere else.

    Args:
        base_url: Where the server listens, such as `http://localhost:8000`.
        model_folder: Where versions of the policy are written, one folder each; the last one is kept.
        reload: Whether a sync hands over all weights, or the adapter of a policy tuned with peft.
        eos_token_id: The policy's end-of-sequence token.
        drift_limit: Largest difference per token, nats, from the trainer's log-probabilities that is rounding. 1e-4 for a
            server that computes in float32; the default is a guess for bfloat16.
        concurrency: Requests under way at most.
        timeout: Seconds that one request for samples may take, head and body; it is tried five times.
        reload_timeout: Seconds that one reload may take, likewise.

    Raises:
        ImportError: httpx is not installed.
        ValueError: `base_url` is no http address or holds a password, or the key is none that a header can carry.
    """

    def __init__(
        self,
        base_url: str,
        model_folder: Path,
        reload: Literal["weights", "adapter"],
        eos_token_id: int,
        *,
        drift_limit: float = 0.25,
        concurrency: int = 32,
        timeout: float = 120.0,
        reload_timeout: float = 600.0,
    ) -> None:
        self.drift_limit = drift_limit
        self._http = _Http(base_url, concurrency, timeout)
        self._folder = Path(model_folder).resolve()
        self._reload = reload
        self._eos = eos_token_id
        self._concurrency = concurrency
        self._reload_timeout = reload_timeout
        self._held: _Held | None = None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def sync(self, policy: Rewriter) -> Sync:
        """Write the policy, have the server load it, and compare what it then answers with the trainer's log-probabilities.

        Raises:
            ServerError: the server failed, or answers unlike the policy; the engine then holds no version.
            ValueError: the policy does not go with this engine's `reload` or end-of-sequence token, or is not a number.
        """
        self._held = None
        self._refuse_misfit(policy)
        version = policy.policy_hash
        probes = _probe_prompts(policy)
        expected = _next_token_log_probs(policy.model, probes)
        folder = self._write(policy, version)
        served = self._served()
        model = self._load_adapter(folder, served) if self._reload == "adapter" else self._load_weights(folder, served)
        held = _Held(version, model, probes, expected)
        difference = self._difference(held)
        if difference > self.drift_limit:
            raise SamplingServerError(
                f"{self._http.base_url} does not hold policy {version} after the reload: its log-probabilities are up to "
                f"{difference:.3g} nats from the trainer's, limit {self.drift_limit:g}. It kept other weights or loaded half "
                "of them (restart it and look into its log), or computes in a lower precision than the limit is for"
            )
        self._remove_others(folder, model, served)
        self._held = held
        return Sync(version, sum(f.stat().st_size for f in folder.glob("*.safetensors")))

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        *,
        expected: str,
        keys: Sequence[int],
        seed: int,
        phase: int,
        max_new_tokens: int,
        progress: SampleProgress = lambda done, total: None,
        ready: Ready = NOBODY_WAITS,
    ) -> list[list[Completion]]:
        """`n` samples of every prompt at temperature 1, unfiltered, whatever the server's defaults are.

        Args:
            prompts: Prompt ids.
            n: Samples of each.
            expected: Policy version to sample from.
            keys: A key of each prompt; a request's seed is a function of (seed, phase, key), so that a retry asks for the same.
            seed, phase: The other keys.
            max_new_tokens: Length limit, tokens.
            progress: Called with (prompts done, of how many).
            ready: Called with the prompts that are finished.

        Raises:
            StalePolicyError: the engine does not hold `expected`, or the server lost it meanwhile (a restart, another client).
            ServerError: the server failed or its answer cannot be used.
        """
        held = self._held
        if held is None or held.version != expected:
            version = held.version if held else "none"
            raise StalePolicyError(f"{self._http.base_url} holds policy {version}, not {expected}: sync it first")
        # 53 bits: a JSON number that every reader keeps exactly.
        seeds = [int(keyed_bits(seed, phase, key)) >> 11 for key in keys]
        completions = self._complete_all(held, prompts, seeds, n, max_new_tokens, progress, ready)
        difference = self._difference(held)
        if difference > self.drift_limit:
            self._held = None
            raise StalePolicyError(
                f"{self._http.base_url} lost policy {expected} while it was sampled from: its log-probabilities are now up to "
                f"{difference:.3g} nats from the trainer's, limit {self.drift_limit:g}. Was it restarted, or does another "
                "client load weights into it? Sync it again"
            )
        return completions

    def _refuse_misfit(self, policy: Rewriter) -> None:
        if self._reload == "weights" and policy.has_adapter:
            raise ValueError("the policy is tuned through an adapter: use reload='adapter', which hands over only that")
        if self._reload == "adapter" and not policy.has_adapter:
            raise ValueError("the policy has no adapter: use reload='weights', or wrap its model with peft.get_peft_model")
        if policy.tokenizer.eos_token_id != self._eos:
            raise ValueError(f"the policy ends with token {policy.tokenizer.eos_token_id}, the engine expects {self._eos}")

    def _write(self, policy: Rewriter, version: str) -> Path:
        """The policy in a folder named by its hash: whole, or not there."""
        final, partial = self._folder / f"policy-{version}", self._folder / f".policy-{version}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            if self._reload == "adapter":
                # The server's base has the embeddings already; left to choose, peft would add them to every adapter.
                with naming(final):
                    policy.model.save_pretrained(str(partial), save_embedding_layers=False)
            else:
                policy.save(partial)
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return final

    def _served(self) -> list[str]:
        """Names of the models that the server offers, its base model first."""
        answer = self._http.json("GET", "/v1/models")
        try:
            names = [model["id"] for model in answer["data"]]
            if not all(isinstance(name, str) for name in names):
                raise TypeError("a name is a text")
        except (TypeError, KeyError) as error:
            raise SamplingServerError(f"GET {self._http.base_url}/v1/models names no models: {_cut(answer)}") from error
        if not names:
            raise SamplingServerError(f"GET {self._http.base_url}/v1/models names no models: start the server with one")
        return names

    def _load_weights(self, folder: Path, served: list[str]) -> str:
        body = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        try:
            self._http.send("POST", "/collective_rpc", body, timeout=self._reload_timeout)
        except SamplingServerError as error:
            hint = f"Was the server started with VLLM_SERVER_DEV_MODE=1, and does it see {folder}?"
            raise SamplingServerError(f"{error}. {hint}") from error
        # Without the flag a reset is skipped, and answered with 200, while any request runs.
        self._http.send("POST", "/reset_prefix_cache?reset_running_requests=true", timeout=self._reload_timeout)
        return served[0]

    def _load_adapter(self, folder: Path, served: list[str]) -> str:
        name = folder.name
        if name in served:  # a run resumed, or synced twice: what it holds under this name may be half of it
            self._http.send("POST", "/v1/unload_lora_adapter", {"lora_name": name})
        body = {"lora_name": name, "lora_path": str(folder)}
        try:
            # Not repeated: loading a name twice is refused, also where only the first answer was lost.
            self._http.send("POST", "/v1/load_lora_adapter", body, timeout=self._reload_timeout, attempts=1)
        except SamplingServerError as error:
            if name not in self._served():
                hint = "Was the server started with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
                raise SamplingServerError(f"{error}. {hint}, and does it see {folder}?") from error
        return name

    def _remove_others(self, folder: Path, model: str, served: list[str]) -> None:
        """Older versions, once the new one is verified: adapters on the server, folders here."""
        for name in served:
            if self._reload == "adapter" and name != model and _OURS.fullmatch(name):
                self._http.send("POST", "/v1/unload_lora_adapter", {"lora_name": name})
        for other in self._folder.iterdir():
            if other != folder and _OURS.fullmatch(other.name.removeprefix(".").removesuffix(".partial")):
                shutil.rmtree(other, ignore_errors=True)  # what cannot be removed now is tried again at the next sync

    def _difference(self, held: _Held) -> float:
        """Largest difference between the server's and the trainer's log-probabilities of sampled next tokens, nats."""
        rows = self._complete_all(held, held.probes, range(len(held.probes)), _PROBE_SAMPLES, 1)
        return max(
            abs(completion.log_probs[0] - float(expected[completion.token_ids[0]]))
            for expected, row in zip(held.expected, rows, strict=True)
            for completion in row
        )

    def _complete_all(
        self,
        held: _Held,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        n: int,
        limit: int,
        progress: SampleProgress = lambda done, total: None,
        ready: Ready = NOBODY_WAITS,
    ) -> list[list[Completion]]:
        with ThreadPoolExecutor(self._concurrency) as pool:
            futures = [
                pool.submit(self._complete, held, prompt, seed, n, limit) for prompt, seed in zip(prompts, seeds, strict=True)
            ]
            try:
                number = {future: i for i, future in enumerate(futures)}
                for done, future in enumerate(as_completed(futures), 1):
                    ready([number[future]], [future.result()])
                    progress(done, len(futures))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        return [future.result() for future in futures]

    def _complete(self, held: _Held, prompt: Sequence[int], seed: int, n: int, limit: int) -> list[Completion]:
        # Every setting that bends the distribution is named: what is left out, a server takes from the model's folder.
        body = {
            "model": held.model,
            "prompt": list(prompt),
            "n": n,
            "max_tokens": limit,
            "seed": seed,
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "stop_token_ids": [self._eos],
            "logprobs": 1,
            "return_token_ids": True,
        }
        # Of each token its id, its text and its probability, and of each prompt the ids.
        answer = self._http.json("POST", "/v1/completions", body, _MOST_BYTES + _TOKEN_BYTES * n * (len(prompt) + limit))
        try:
            return _read(answer, prompt, n, limit, held.expected.shape[1], self._eos)
        except ValueError as error:
            raise SamplingServerError(f"POST {self._http.base_url}/v1/completions: {error}") from error


def _read(answer: Any, prompt: Sequence[int], n: int, limit: int, vocabulary: int, eos: int) -> list[Completion]:
    """The completions of an answer, in the order of their index.

    Raises:
        ValueError: what is wrong with it.
    """
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise ValueError(f"the answer holds no list of choices: {_cut(answer)}")
    indices = [choice.get("index") for choice in choices]
    if len(indices) != n or any(i not in indices for i in range(n)):
        raise ValueError(f"the answer holds choices {_cut(indices)}, asked for were {n}")
    return [_read_choice(choices[indices.index(i)], prompt, limit, vocabulary, eos) for i in range(n)]


def _read_choice(choice: dict[str, Any], prompt: Sequence[int], limit: int, vocabulary: int, eos: int) -> Completion:
    ids = choice.get("token_ids")
    if not isinstance(ids, list):
        raise ValueError(
            "a choice has no token_ids, and text is never tokenised again: use a server that knows return_token_ids, such as "
            "vLLM from vllm-project/vllm#22587 on"
        )
    seen = choice.get("prompt_token_ids")
    if seen is not None and seen != list(prompt):
        found = f"{len(seen)} ids" if isinstance(seen, list) else _cut(seen)
        raise ValueError(f"the server changed the prompt: {found} instead of {len(prompt)}, or others")
    wrong = [i for i in ids if type(i) is not int or not 0 <= i < vocabulary]
    if wrong:
        raise ValueError(f"token id {_cut(wrong[0])} is not in the policy's vocabulary of {vocabulary}: is it another model?")
    if not 1 <= len(ids) <= limit:
        raise ValueError(f"a choice has {len(ids)} tokens, asked for were 1 to {limit}")
    if eos in ids[:-1] or (ids[-1] != eos and len(ids) < limit):
        raise ValueError(
            f"a choice of {len(ids)} tokens (finish_reason {_cut(choice.get('finish_reason'))}) ends neither at the limit of "
            f"{limit} nor where token {eos} first comes: the server stops at other tokens too (start vLLM with "
            "--generation-config vllm), leaves the last one out, or ran into its own length limit"
        )
    logprobs = choice.get("logprobs")
    values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    if not isinstance(values, list) or len(values) != len(ids):
        raise ValueError(f"a choice of {len(ids)} tokens lacks logprobs.token_logprobs for each")
    if not all(isinstance(value, int | float) and abs(value) <= sys.float_info.max for value in values):
        raise ValueError(f"a choice has a log-probability that is no finite number: {_cut(values)}")
    return Completion(tuple(ids), tuple(float(value) for value in values))


def _probe_prompts(policy: Rewriter) -> list[list[int]]:
    """Fixed queries as prompts. No encoding has more tokens than letters: what is cut so fits every template."""
    limit = max(1, policy.template.config.max_tokens - 4)
    return [policy.template.encode(Query(text[:limit])) for text in _PROBES]


def _next_token_log_probs(model: Any, prompts: Sequence[Sequence[int]]) -> Tensor:
    """[prompts, vocabulary] log-probabilities of what follows each prompt, float32, on the CPU."""
    device, training = next(model.parameters()).device, model.training
    model.eval()
    try:
        with torch.no_grad():
            rows = [model(input_ids=torch.tensor([list(prompt)], device=device)).logits[0, -1] for prompt in prompts]
    finally:
        model.train(training)
    log_probs = torch.stack(rows).float().log_softmax(-1).cpu()
    if bool(log_probs.isnan().any()):
        raise ValueError("the policy's log-probabilities are not numbers: its weights have diverged, nothing was synced")
    return log_probs


def _cut(value: Any) -> str:
    """A value of an answer as an error names it."""
    try:
        return repr(value)[:_SHOWN]
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists in lists
        return f"a {type(value).__name__} that cannot be printed"


class _Http:
    """Requests to one server: what may pass (no connection, 429, 5xx) is tried again, what will not (4xx) is not.

    Each attempt ends in its time, from the first packet to the end of the body, and within a size; whatever goes wrong is a
    `SamplingServerError`.
    """

    def __init__(self, base_url: str, concurrency: int, timeout: float) -> None:
        try:
            import httpx

            from corewrite.remote.http import BoundedTransport
        except ImportError as error:
            raise ImportError("a sampling server is reached through httpx: pip install 'corewrite[server]'") from error
        address = urlsplit(base_url)
        if address.username or address.password:
            raise ValueError(f"base_url holds a user name or password: give a key in the environment as {API_KEY_VARIABLE}")
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"base_url {base_url!r} is no http address: give one such as http://localhost:8000")
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        self._key = os.environ.get(API_KEY_VARIABLE, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise ValueError(f"{API_KEY_VARIABLE} holds characters that a header cannot carry")
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._timeout = timeout
        self._httpx = httpx
        limits = httpx.Limits(max_connections=concurrency)
        self._client = httpx.Client(headers=headers, transport=BoundedTransport(base_url, limits=limits))

    def close(self) -> None:
        self._client.close()

    def json(self, method: str, path: str, body: dict[str, Any] | None = None, most_bytes: int = _MOST_BYTES) -> Any:
        said = self.send(method, path, body, most_bytes=most_bytes)
        try:
            return json.loads(said)
        except (ValueError, RecursionError) as error:
            raise SamplingServerError(f"{method} {self.base_url}{path}: the answer is no JSON: {self._shown(said)}") from error

    def send(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
        attempts: int = _ATTEMPTS,
        most_bytes: int = _MOST_BYTES,
    ) -> bytes:
        """The answer's body.

        Args:
            method, path, body: What is asked.
            timeout: Seconds that each attempt may take; None: as for samples.
            attempts: How often it is asked at most.
            most_bytes: Size of the body at most.

        Raises:
            ServerError: there is no such answer.
        """
        url, failure = f"{self.base_url}{path}", ""
        seconds = timeout or self._timeout
        for attempt in range(attempts):
            if attempt:
                time.sleep(_FIRST_WAIT * 2 ** (attempt - 1))
            try:
                status, said = self._exchange(method, url, body, seconds, most_bytes)
            except self._httpx.TransportError as error:
                failure = f"no answer, {type(error).__name__}: {self._shown(str(error).encode())}"
                continue
            except SamplingServerError:
                raise
            except Exception as error:  # what the layers below make of an answer that no server should give
                raise SamplingServerError(
                    f"{method} {url}: {type(error).__name__}: {self._shown(str(error).encode())}"
                ) from error
            if 200 <= status < 300:
                return said
            failure = f"status {status}: {self._shown(said)}"
            if status != 429 and status < 500:
                raise SamplingServerError(f"{method} {url}: {failure}")
        raise SamplingServerError(f"{method} {url}, tried {attempts} times: {failure}")

    def _exchange(
        self, method: str, url: str, body: dict[str, Any] | None, seconds: float, most_bytes: int
    ) -> tuple[int, bytes]:
        timeout = self._httpx.Timeout(seconds, connect=min(_CONNECT, seconds))
        parts, size = [], 0
        with self._client.stream(method, url, json=body, timeout=timeout) as response:
            for part in response.iter_raw():  # neither unpacked nor decoded: the server names no codec that we run
                parts.append(part)
                size += len(part)
                if size > most_bytes:
                    raise SamplingServerError(f"{method} {url}: the answer is longer than {most_bytes} bytes")
            return response.status_code, b"".join(parts)

    def _shown(self, said: bytes) -> str:
        """The beginning of what a server said, without the key should it say that."""
        text = said[: _SHOWN + len(self._key)].decode("utf-8", "replace")
        return (text.replace(self._key, "***") if self._key else text)[:_SHOWN]
