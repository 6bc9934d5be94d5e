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
that loads the folders and samples from them. Unknown are therefore the right `log_prob_mismatch_limit` (the default is a guess
for bfloat16: calibrate it), the speed, servers of several processes (a reload must reach each, a probe asks whichever answers),
and which versions of vLLM answer as described. A change smaller than that limit on every probed token passes the probe.

Unlike in-process sampling, draws are keyed by (seed, phase, key) only; the server derives those of each sample and position
from that seed, so they repeat as far as its own arithmetic does.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from corewrite.domain import keyed_bits
from corewrite.rewriter import Completion, Rewriter
from corewrite.training.samplers.protocol import IGNORE_READY, Ready, SampleProgress, StalePolicyError, Sync
from corewrite.training.samplers.server_answers import read_completions
from corewrite.training.samplers.server_client import MOST_BYTES, SamplingServerError, ServerClient
from corewrite.training.samplers.server_probe import (
    NUM_PROBE_SAMPLES,
    largest_probe_mismatch,
    next_token_log_probs,
    probe_prompts,
)
from corewrite.training.samplers.server_weights import WeightLoader

_TOKEN_BYTES = 256
"""What is added to the size of an answer at most, for each token."""


@dataclass(frozen=True)
class _Held:
    """The policy that was loaded into the server and verified.

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
        eos_token_id: The policy's end-of-sequence token, which must end its rewrites.
        log_prob_mismatch_limit: Largest difference from the trainer's log-probabilities that rounding explains, nats per token.
            1e-4 for a server that computes in float32; the default is a guess for bfloat16.
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
        log_prob_mismatch_limit: float = 0.25,
        concurrency: int = 32,
        timeout: float = 120.0,
        reload_timeout: float = 600.0,
    ) -> None:
        self.log_prob_mismatch_limit = log_prob_mismatch_limit
        self._http = ServerClient(base_url, concurrency, timeout)
        self.model_folder = Path(model_folder).resolve()
        self._weights = WeightLoader(self._http, self.model_folder, reload, reload_timeout)
        self._reload = reload
        self._eos = eos_token_id
        self._concurrency = concurrency
        self._held: _Held | None = None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def sync(self, policy: Rewriter) -> Sync:
        """Write the policy, have the server load it, and compare what it then answers with the trainer's log-probabilities.

        Raises:
            SamplingServerError: the server failed, or answers unlike the policy; the engine then holds no version.
            ValueError: the policy does not go with this engine's `reload` or end-of-sequence token, or is not a number.
        """
        self._held = None
        self._refuse_misfit(policy)
        version = policy.policy_hash
        probes = probe_prompts(policy)
        expected = next_token_log_probs(policy.model, probes)
        loaded = self._weights.load(policy, version)
        held = _Held(version, loaded.model, probes, expected)
        difference, limit = self._difference(held), self.log_prob_mismatch_limit
        if difference > limit:
            raise SamplingServerError(
                f"{self._http.base_url} does not hold policy {version} after the reload: its log-probabilities are up to "
                f"{difference:.3g} nats from the trainer's, limit {limit:g}. It kept other weights or loaded half "
                "of them (restart it and look into its log), or computes in a lower precision than the limit is for"
            )
        self._weights.remove_others(loaded)
        self._held = held
        return Sync(version, sum(f.stat().st_size for f in loaded.folder.glob("*.safetensors")))

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
        ready: Ready = IGNORE_READY,
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
            SamplingServerError: the server failed or its answer cannot be used.
        """
        held = self._held
        if held is None or held.version != expected:
            version = held.version if held else "none"
            raise StalePolicyError(f"{self._http.base_url} holds policy {version}, not {expected}: sync it first")
        # 53 bits: a JSON number that every reader keeps exactly.
        seeds = [int(keyed_bits(seed, phase, key)) >> 11 for key in keys]
        completions = self._complete_all(held, prompts, seeds, n, max_new_tokens, progress, ready)
        difference, limit = self._difference(held), self.log_prob_mismatch_limit
        if difference > limit:
            self._held = None
            raise StalePolicyError(
                f"{self._http.base_url} lost policy {expected} while it was sampled from: its log-probabilities are now up to "
                f"{difference:.3g} nats from the trainer's, limit {limit:g}. Was it restarted, or does another "
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
        if policy.template.end_id != self._eos:
            raise ValueError(
                f"the policy's prompt template ends a rewrite with {policy.template.config.end!r:.50}, a server at the "
                "tokenizer's end-of-sequence token: sample in this process, or use a chat template"
            )

    def _difference(self, held: _Held) -> float:
        """Largest difference between the server's and the trainer's log-probabilities of sampled next tokens, nats."""
        rows = self._complete_all(held, held.probes, range(len(held.probes)), NUM_PROBE_SAMPLES, 1)
        return largest_probe_mismatch(held.expected, rows)

    def _complete_all(
        self,
        held: _Held,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        n: int,
        limit: int,
        progress: SampleProgress = lambda done, total: None,
        ready: Ready = IGNORE_READY,
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
        answer = self._http.json("POST", "/v1/completions", body, MOST_BYTES + _TOKEN_BYTES * n * (len(prompt) + limit))
        try:
            return read_completions(answer, prompt, n, limit, held.expected.shape[1], self._eos)
        except ValueError as error:
            raise SamplingServerError(f"POST {self._http.base_url}/v1/completions: {error}") from error
