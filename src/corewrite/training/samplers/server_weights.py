"""Handing a policy's weights to a server: written to a folder that both see, loaded by it, and older versions removed."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from corewrite.rewriter import Rewriter
from corewrite.storage.durable import naming
from corewrite.training.samplers.server_answers import cut
from corewrite.training.samplers.server_client import SamplingServerError, ServerClient

_OURS = re.compile(r"policy-[0-9a-f]{64}")


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy that a server was asked to load.

    Attributes:
        folder: Where it is written.
        model: The server's name for it.
        served: Names of the models that the server offered before, its base model first.
    """

    folder: Path
    model: str
    served: list[str]


class WeightLoader:
    """Loads versions of one policy into a server.

    Args:
        http: The server.
        folder: Where versions are written, one folder each.
        reload: Whether all weights are loaded, or the adapter of a policy tuned with peft.
        timeout: Seconds that one reload may take.
    """

    def __init__(self, http: ServerClient, folder: Path, reload: Literal["weights", "adapter"], timeout: float) -> None:
        self._http, self._folder, self._reload, self._reload_timeout = http, folder, reload, timeout

    def load(self, policy: Rewriter, version: str) -> LoadedPolicy:
        """Write the policy and have the server load it; that it was loaded is for a probe to say.

        Raises:
            SamplingServerError: the server failed or refused.
            OSError: the folder cannot be written.
        """
        folder = self._write(policy, version)
        served = self._served()
        model = self._load_adapter(folder, served) if self._reload == "adapter" else self._load_weights(folder, served)
        return LoadedPolicy(folder, model, served)

    def remove_others(self, loaded: LoadedPolicy) -> None:
        """Remove older versions, once the new one is verified: adapters on the server, folders here.

        Raises:
            SamplingServerError: the server failed or refused.
        """
        for name in loaded.served:
            if self._reload == "adapter" and name != loaded.model and _OURS.fullmatch(name):
                self._http.send("POST", "/v1/unload_lora_adapter", {"lora_name": name})
        for other in self._folder.iterdir():
            if other != loaded.folder and _OURS.fullmatch(other.name.removeprefix(".").removesuffix(".partial")):
                shutil.rmtree(other, ignore_errors=True)  # what cannot be removed now is tried again at the next sync

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
            raise SamplingServerError(f"GET {self._http.base_url}/v1/models names no models: {cut(answer)}") from error
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
