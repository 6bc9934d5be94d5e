"""`corewrite model`."""

import os
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from corewrite.cli.common import print_json, progress_console, reported_errors, say

if TYPE_CHECKING:
    from corewrite.capacity.memory import MemoryPrediction
    from corewrite.rewriter import ImportedModel, TemplateChoice

app = typer.Typer(help="Make a rewriter of a pretrained model, and write one for another program.", no_args_is_help=True)

EXAMPLES = (
    "Examples: `corewrite model import SmolLM2-135M-Instruct.Q4_1.gguf --out models/smollm2` · "
    "`corewrite model export models/smollm2 --for vllm --out served/base`"
)


class Target(StrEnum):
    """What a model can be exported for."""

    VLLM = "vllm"


@app.command(
    "import",
    epilog=(
        "Examples: `corewrite model import SmolLM2-135M-Instruct.Q4_1.gguf --out models/smollm2 --prompt-tokens 128` · "
        "`corewrite model import ./my-causal-lm --out models/mine --home-locale de --json`"
    ),
)
def import_(
    source: Path = typer.Argument(help="A GGUF file (extra `gguf`), or a transformers folder.", metavar="FILE|FOLDER"),
    out: Path = typer.Option(help="Where the rewriter goes: a folder that is not there yet, or is empty."),
    prompt_tokens: int | None = typer.Option(
        None, min=16, help="Tokens of a prompt at most; default: 512, or what the model's positions leave beside a rewrite."
    ),
    home_locale: str = typer.Option("", help="The locale that prompts leave out, such as en; default: they name every one."),
    template: str = typer.Option(
        "reserved",
        help="How queries become prompts: reserved (tokens of its own, which a warm start gives a meaning), chat (the "
        "model's own chat template), few_shot (plain text), or a Jinja file.",
        metavar="KIND|FILE",
    ),
    example_tokens: int = typer.Option(
        32, min=4, help="Mean tokens of a prompt and its rewrite in your log: memory of training is predicted for it."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print what was made as JSON."),
) -> None:
    """Make a rewriter of a pretrained model: float32, with its prompt template; no code of the model is run."""
    from corewrite.capacity.memory import predict_memory
    from corewrite.report.progress import ProgressSteps
    from corewrite.rewriter import import_model
    from corewrite.training import TrainingConfig

    steps = ProgressSteps(progress_console(quiet=as_json))
    with reported_errors():
        _refuse_filled(out)
        with steps.step("read the model"):
            imported = import_model(source, prompt_tokens=prompt_tokens, home_locale=home_locale, template=_template(template))
        with steps.step("write the rewriter"):
            size = _write(out, imported.rewriter.save)
        with steps.step("try the fast paths"):
            paths = imported.rewriter.paths
        with steps.step("predict memory"):
            memory = predict_memory(imported.rewriter, TrainingConfig(), example_tokens)
        about = _about(source, out, imported, size)
    if as_json:
        print_json({**about, "paths": asdict(paths), "memory": asdict(memory)})
    else:
        _say(about, imported, memory)


@app.command(epilog="Example: `corewrite model export models/smollm2 --for vllm --out served/base --json`")
def export(
    folder: Path = typer.Argument(help="A rewriter's folder.", metavar="FOLDER"),
    target: Target = typer.Option(..., "--for", help="What will read it: vllm, which samples for a training."),
    out: Path = typer.Option(help="Where it goes: a folder that is not there yet, or is empty."),
    as_json: bool = typer.Option(False, "--json", help="Print what was made as JSON."),
) -> None:
    """Write a rewriter for vLLM to start from, with an LM head that a sync reloads: no artifact of a registry."""
    from corewrite.report.progress import ProgressSteps
    from corewrite.rewriter import load_rewriter, save_export

    steps = ProgressSteps(progress_console(quiet=as_json))
    with reported_errors():
        _refuse_filled(out)
        with steps.step("read the rewriter"):
            rewriter = load_rewriter(folder)
        with steps.step("write it"):
            size = _write(out, lambda place: save_export(rewriter, place, target.value))
    if as_json:
        print_json({"folder": str(out), "for": target.value, "policy": rewriter.policy_hash, "bytes": size})
    else:
        say(
            f"{out}: {_size(size)}, policy {rewriter.policy_hash[:12]} with an LM head of its own",
            "for a server to start from and reload alone: no command here takes it as a model, and no registry as an artifact",
        )


def _template(name: str) -> "TemplateChoice":
    from corewrite.cycle.template_settings import TemplateSettings
    from corewrite.rewriter import TemplateChoice
    from corewrite.rewriter.template_config import JINJA, KINDS

    chosen = {"kind": name} if name in KINDS and name != JINJA else {"kind": JINJA, "file": name}
    if chosen["kind"] == JINJA and not Path(name).is_file():
        raise ValueError(f"--template {name}: no such kind and no such file: give reserved, chat, few_shot or a Jinja file")
    return TemplateSettings.model_validate(chosen).load() or TemplateChoice()


def _refuse_filled(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is there already and not an empty folder: name another one with --out")


def _write(out: Path, save: Any) -> int:
    """Write a folder whole or not at all; its size in bytes."""
    from corewrite.storage.durable import PARTIAL, make_folder, move_folder, naming, remove_tree, sync, sync_tree

    make_folder(out.absolute().parent)
    partial = out.absolute().with_name(f"{PARTIAL}{out.name}")
    if partial.exists():
        remove_tree(partial)
    try:
        with naming(out):
            save(partial)
            sync_tree(partial)
        if not move_folder(partial, out.absolute()):
            raise FileExistsError(f"{out} was filled meanwhile: name another folder with --out")
        sync(out.absolute().parent)
    except BaseException:
        if partial.exists():
            remove_tree(partial)
        raise
    return sum(file.stat().st_size for file in out.iterdir())


def _about(source: Path, out: Path, imported: "ImportedModel", size: int) -> dict[str, Any]:
    rewriter = imported.rewriter
    files = [source] if source.is_file() else list(source.glob("*.safetensors"))
    return {
        "folder": str(out),
        "policy": rewriter.policy_hash,
        "source": str(source),
        "format": imported.format,
        "stored": dict(imported.stored),
        "source_bytes": sum(file.stat().st_size for file in files),
        "architecture": type(rewriter.model).__name__,
        "parameters": rewriter.parameters,
        "num_added_tokens": imported.num_added_tokens,
        "bytes": size,
        "template": asdict(rewriter.template.config),
    }


def _say(about: dict[str, Any], imported: "ImportedModel", memory: "MemoryPrediction") -> None:
    template, paths, total = imported.rewriter.template.config, imported.rewriter.paths, sum(imported.stored.values())
    stored = ", ".join(f"{name} {n / total:.0%}" for name, n in imported.stored.items()) if total else "nothing"
    batch, fitting = f"micro-batches of {memory.tokens_per_micro_batch:,} tokens", memory.tokens_that_fit(_installed())
    added = about["num_added_tokens"]
    lora = "unknown, pip install 'corewrite[lora]'" if memory.training_lora is None else _size(memory.training_lora)
    say(
        f"{about['folder']}: policy {about['policy'][:12]}, {about['architecture']}, {about['parameters']:,} parameters",
        f"read         {imported.format}, {_size(about['source_bytes'])}, stored as {stored}; written as float32",
        f"on disk      {_size(about['bytes'])}",
        f"prompt       {template.max_tokens} tokens at most, {imported.rewriter.template.room} for a query ({template.kind})",
        *([f"             {added} new tokens, which mean nothing before a warm start"] if added else []),
        f"fast paths   packed rows {_yes(paths.packed)}, shared prefixes {_yes(paths.shared_prefix)}",
        *(f"             {reason}" for reason in paths.reasons),
        f"memory       predicted for a processor, beside the process itself; prompt and rewrite {memory.example_tokens} tokens",
        f"  serving    {_size(memory.serving)}, one rewrite at a time",
        f"  warm start {_size(memory.warm_start)}, all weights",
        f"  training   {_size(memory.training)}, all weights, {batch}; LoRA {lora}: half as much again was measured",
    )
    if memory.training > _installed():
        smaller = f"micro-batches of {fitting:,} tokens at most (training.tokens_per_micro_batch)"
        way = smaller if fitting >= 64 else "an adapter (training.lora)"
        say(f"This machine has {_size(_installed())} of memory: train with {way}.", fg="yellow")


def _installed() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _yes(it_is: bool) -> str:
    return "yes" if it_is else "no"


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
