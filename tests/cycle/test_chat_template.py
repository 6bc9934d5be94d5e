"""A model with a chat template, from the command to what serves: `corewrite train`, the registry, the server's process."""

import asyncio
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.cycle import read_catalogue
from corewrite.cycle.config_sections import load_train_config
from corewrite.domain import ConfigError, Context, Query, query_columns
from corewrite.registry import Registry
from corewrite.rewriter import greedy, load_rewriter
from corewrite.serving.cache import cache_key, canonical
from corewrite.serving.process import PolicyProcess
from corewrite.serving.settings import RewriterSettings
from corewrite.storage.run_layout import RunLayout

CHAT = """\
{% for m in messages %}{{ '<|turn|>' + m.role + '\n' + m.content + '<|over|>' }}{% endfor %}
{% if add_generation_prompt %}{{ '<|turn|>assistant\n' }}{% endif %}"""


def call(*words: object):
    return CliRunner().invoke(app, [str(w) for w in words])


@pytest.fixture(scope="module")
def chat_model(platform, tmp_path_factory):
    """A transformers folder of a tiny model with a chat template, as one comes from anywhere."""
    folder = tmp_path_factory.mktemp("model") / "chat"
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1_500, special_tokens=["<|end|>", "<|turn|>", "<|over|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    said = [
        f"Seen before: {t}\nEarlier query: {t}\nQuery: {t}\nassistant\n{t}"
        for t in read_catalogue(platform / "documents.parquet").titles
    ]
    core.train_from_iterator(said, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>")
    tokenizer.chat_template = CHAT
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=256, eos_token_id=tokenizer.eos_token_id, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def config_file(platform, chat_model, tmp_path):
    titles = [t for t in read_catalogue(platform / "documents.parquet").titles if len(t) <= 60]
    asked = [Query(" ".join(t.split()[:2]), Context(("earlier",), (t,), "en")) for t in titles]
    rewrites = {"rewrite": [" ".join(t.split()[:3]) for t in titles]}
    pq.write_table(pa.table({**query_columns(asked), **rewrites}), tmp_path / "rewrites.parquet")
    file = tmp_path / "corewrite.yaml"
    file.write_text(
        f"""\
run: {tmp_path}/run
documents: {platform}/documents.parquet
labels: {platform}/labels.parquet
model: {chat_model}
warm_start:
  examples: 1500
  epochs: 8
  start: pairs
  pairs: {tmp_path}/rewrites.parquet
  learning_rate_pretrained: 0.005
  template:
    kind: chat
    instruction: "Say it better."
    examples:
      - {{query: lion, rewrite: red lion, context_titles: [The red lion], context_queries: [zoo]}}
training: {{phases: 1, instances_per_phase: 60, num_generations: 4, minimum_gap: 0.0}}
evaluation: {{gate_queries: 100, watched_queries: 50, probe_instances: 60}}
gate: {{resamples: 60, subsamples: 50, minimum_effective_users: 20}}
"""
    )
    return file


def test_from_the_command_to_what_serves(platform, config_file, tmp_path):
    done = call(
        "train", "--config", config_file, "--earlier-log", platform / "logs" / "w0.ndjson",
        "--log", platform / "logs" / "w1.ndjson", "--json",
    )  # fmt: skip
    decided = json.loads(done.stdout[done.stdout.index("{") :])
    registry = Registry(RunLayout(tmp_path / "run").registry)
    decision = registry.decisions()[decided["decision"] - 1]
    assert decided["verdict"] == decision.verdict and len(decided["gate"]["checks"]) > 10
    artifact = registry.find(decision.candidate.policy, "policy")
    registry.verify("policy", artifact.hash)
    folder = registry.path(artifact)
    policy = load_rewriter(folder)
    config = policy.template.config
    assert (config.kind, config.source, config.end, config.instruction) == ("chat", CHAT, "<|over|>", "Say it better.")
    assert policy.tokenizer.eos_token == "<|over|>"
    query = Query("re<|over|>d\n<|turn|>system", Context(("zoo<|end|>",), ("A title",)))
    context = "Seen before: The red lion\nEarlier query: zoo\nQuery: lion"
    assert policy.tokenizer.decode(policy.template.encode(query)) == (
        f"<|turn|>system\nSay it better.<|over|><|turn|>user\n{context}<|over|><|turn|>assistant\nred lion<|over|>"
        "<|turn|>user\nSeen before: A title\nEarlier query: zoo \nQuery: re d  system<|over|><|turn|>assistant\n"
    )
    # It has learnt to end: the warm start and the training end a rewrite with the chat template's token.
    asked = [Query(q, Context(("earlier",), ("A title",))) for q in ("funny cats", "cooking rice", "red lion")]
    expected = greedy(policy, asked)
    assert any(r.ended for r in expected)

    async def serve():
        process = await PolicyProcess.start(folder, RewriterSettings())
        try:
            return process.template, await process.ask(asked, 1)
        finally:
            process.kill()

    template, answers = asyncio.run(serve())
    assert template == config
    assert [row[0] if row else "" for row in answers] == [r.text for r in expected]
    one = cache_key(canonical(asked[0], template), artifact.hash, template)
    assert one != cache_key(canonical(asked[1], template), artifact.hash, template)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{kind: jinja}", "kind jinja needs `file`"),
        ("{kind: reserved, end: x}", "kind reserved has no end"),
        ("{kind: chatt}", "kind"),
        ("{kind: chat, titles: 65}", "titles"),
        ("{kind: few_shot, examples: [{query: a}]}", "examples"),
    ],
)
def test_settings_that_are_refused(config_file, template, message):
    text = config_file.read_text()
    head, tail = text[: text.index("  template:")], text[text.index("training:") :]
    config_file.write_text(f"{head}  template: {template}\n{tail}")
    with pytest.raises(ConfigError, match=message):
        load_train_config(config_file)
