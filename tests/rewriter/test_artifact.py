"""Rewriters as folders: saved, loaded, copied, refused."""

import importlib
import json
import pickle
import resource
import shutil
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from corewrite.domain import Context, Query, sha256_chunks
from corewrite.rewriter import (
    Example,
    Rewriter,
    RewriterError,
    TemplateConfig,
    artifact,
    fine_tune,
    greedy,
    load_rewriter,
    new_small_decoder,
    response_log_probs,
)
from corewrite.rewriter.artifact import check_model
from corewrite.rewriter.template import MARKS, PromptTemplate


def test_round_trip(trained: Rewriter, queries: list[Query], tmp_path: Path) -> None:
    template = PromptTemplate(trained.tokenizer, TemplateConfig(max_tokens=60, titles=1))
    saved = Rewriter(trained.model, trained.tokenizer, template)
    saved.save(tmp_path / "a" / "b")
    loaded = load_rewriter(tmp_path / "a" / "b")
    assert loaded.policy_hash == saved.policy_hash
    assert loaded.template.config == template.config
    assert greedy(loaded, queries) == greedy(saved, queries)
    assert loaded.parameters == saved.parameters == sum(p.numel() for p in trained.model.parameters())
    assert load_rewriter(str(tmp_path / "a" / "b"), TemplateConfig(max_tokens=9)).template.config == template.config


def test_an_artifact_of_format_1_keeps_prompts_tokens_and_hash(rewriter: Rewriter, tmp_path: Path) -> None:
    """Weights and tokenizer as they are, and the template as earlier versions wrote it."""
    rewriter.save(tmp_path / "a")
    text = '{"format": 1, "max_tokens": 96, "part_tokens": 24, "queries": 2, "titles": 3}'
    (tmp_path / "a" / "prompt_template.json").write_text(text, "utf-8")
    loaded = load_rewriter(tmp_path / "a")
    state = sorted(rewriter.model.state_dict().items())
    chunks = [rewriter.tokenizer.backend_tokenizer.to_str().encode(), text.encode()]
    for name, tensor in state:
        chunks += [f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode(), tensor.cpu().numpy().tobytes()]
    assert loaded.policy_hash == sha256_chunks(chunks)
    assert len(loaded.tokenizer) == len(rewriter.tokenizer)
    for query in (Query("lion", Context(locale="de")), Query("lion", Context(("cats",), ("A title",), "de-AT"))):
        c = query.context
        assert loaded.template.encode(query) == rewriter.template.encode(Query("lion", Context(c.queries, c.titles)))
    loaded.copy().save(tmp_path / "b")  # as a week's training does: the champion's format goes on
    assert (tmp_path / "b" / "prompt_template.json").read_text("utf-8") == text


def test_new_policies_have_the_locale_in_the_prompt(rewriter: Rewriter, plain_folder: Path) -> None:
    for policy in (rewriter, load_rewriter(plain_folder)):
        prompts = [policy.template.encode(Query("lion", Context(locale=locale))) for locale in ("", "de", "fr")]
        assert policy.template.config.format == 2 and len({tuple(p) for p in prompts}) == 3


def test_the_home_locale_is_of_the_artifact(plain_folder: Path, tmp_path: Path) -> None:
    policy = load_rewriter(plain_folder, home_locale="de")
    assert policy.template.config.home_locale == "de"
    policy.save(tmp_path / "a")
    assert load_rewriter(tmp_path / "a", home_locale="fr").template.config == policy.template.config
    sizes = {"vocabulary": 280, "width": 16, "layers": 1, "heads": 2}
    small = [new_small_decoder(["a cat"] * 9, seed=1, home_locale=home, **sizes) for home in ("", "de")]
    assert [p.template.config.home_locale for p in small] == ["", "de"]
    assert small[0].policy_hash != small[1].policy_hash


def test_a_rewrite_can_depend_on_the_locale(rewriter: Rewriter) -> None:
    pairs = [("de", "gift"), ("en", "present"), ("", "lion")]
    examples = [Example(Query("rice", Context(locale=locale)), target) for locale, target in pairs]
    fine_tune(rewriter, examples, epochs=80, seed=1, batch=3, learning_rate=1e-2)
    assert [r.text for r in greedy(rewriter, [e.query for e in examples])] == [target for _, target in pairs]


def test_a_loaded_rewriter_does_not_hang_on_its_file(trained: Rewriter, queries: list[Query], tmp_path: Path) -> None:
    trained.save(tmp_path / "a")
    loaded = load_rewriter(tmp_path / "a")
    before = greedy(loaded, queries)
    file = tmp_path / "a" / "model.safetensors"
    size = file.stat().st_size
    with file.open("r+b") as out:  # in place: whoever maps the file sees it
        out.write(b"\0" * size)
    assert loaded.policy_hash == trained.policy_hash
    assert greedy(loaded, queries) == before
    loaded.save(tmp_path / "a")
    assert load_rewriter(tmp_path / "a").policy_hash == trained.policy_hash


def test_hash_sees_weights_tokenizer_and_template(rewriter: Rewriter) -> None:
    before = rewriter.policy_hash
    assert rewriter.policy_hash == before
    config = TemplateConfig(titles=1)
    assert Rewriter(rewriter.model, rewriter.tokenizer, PromptTemplate(rewriter.tokenizer, config)).policy_hash != before
    other = new_small_decoder(["some other words here"] * 20, seed=1, vocabulary=300, width=32, layers=2, heads=2)
    assert Rewriter(rewriter.model, other.tokenizer, rewriter.template).policy_hash != before
    with torch.no_grad():
        rewriter.model.lm_head.weight[7, 3] += 1e-6
    assert rewriter.policy_hash != before


def test_hash_takes_numbers_without_shape_and_half_precision(rewriter: Rewriter) -> None:
    rewriter.model.register_buffer("scale", torch.tensor(2.0))
    full = rewriter.policy_hash
    rewriter.model.to(torch.bfloat16)
    assert rewriter.policy_hash != full


def test_a_seed_makes_one_model(rewriter: Rewriter) -> None:
    texts = ["red lion trailer", "how to cook rice"] * 10
    one, same, other = (new_small_decoder(texts, seed=s, vocabulary=280, width=16, layers=1, heads=2) for s in (1, 1, 2))
    assert one.policy_hash == same.policy_hash != other.policy_hash


def test_copy_has_weights_of_its_own(trained: Rewriter, queries: list[Query]) -> None:
    twin = trained.copy()
    assert twin.policy_hash == trained.policy_hash
    assert greedy(twin, queries) == greedy(trained, queries)
    before = trained.policy_hash
    with torch.no_grad():
        twin.model.lm_head.weight.zero_()
    assert trained.policy_hash == before != twin.policy_hash


def test_a_plain_transformers_model_gets_the_marks(plain_folder: Path) -> None:
    rewriter = load_rewriter(plain_folder, TemplateConfig(max_tokens=40))
    marks = rewriter.tokenizer.convert_tokens_to_ids(list(MARKS))
    assert len(set(marks)) == len(MARKS)
    assert rewriter.tokenizer.unk_token_id not in marks
    assert rewriter.model.get_input_embeddings().num_embeddings == len(rewriter.tokenizer) == max(marks) + 1
    assert rewriter.tokenizer.pad_token_id is not None
    assert rewriter.template.config.max_tokens == 40
    # It works before any warm start, and loads the same way twice though rows were drawn.
    found = greedy(rewriter, [Query("lion"), Query("cats")], max_new_tokens=4)
    again = load_rewriter(plain_folder, TemplateConfig(max_tokens=40))
    assert greedy(again, [Query("lion"), Query("cats")], max_new_tokens=4) == found
    assert again.policy_hash == rewriter.policy_hash
    prompt = rewriter.template.encode(Query("lion"))
    scored = response_log_probs(rewriter.model, [prompt], [found[0].token_ids])
    assert float(scored.detach().sum()) == pytest.approx(found[0].log_prob, abs=1e-4)
    # As an artifact it needs no limits any more.
    rewriter.save(plain_folder / "artifact")
    assert load_rewriter(plain_folder / "artifact").policy_hash == rewriter.policy_hash


@pytest.fixture
def folder(rewriter: Rewriter, tmp_path: Path) -> Path:
    rewriter.save(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "x.pkl", "optimizer.pth", "a.ckpt", "modeling_x.py"])
def test_pickles_and_code_are_refused_unread(folder: Path, tmp_path: Path, name: str) -> None:
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "exploded",)

    (folder / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(RewriterError, match=rf"{name} (may need unpickling|is code)"):
        load_rewriter(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(RewriterError, match=rf"{name} (may need unpickling|is code)"):
        load_rewriter(folder)
    assert not (tmp_path / "exploded").exists()


def test_remote_code_is_not_run(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "evil.py").write_text(f"open({str(tmp_path / 'exploded')!r}, 'w')")
    config |= {"model_type": "unheard-of", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(RewriterError, match="asks for code of its own"):
        load_rewriter(folder)
    assert not (tmp_path / "exploded").exists()


def shard(folder: Path, value: str) -> None:
    """All weights but one in the file that stands there; that one where an index says."""
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if k != "model.norm.weight"}, folder / "most.safetensors", {"format": "pt"})
    (folder / "model.safetensors").unlink()
    shards = {name: value if name == "model.norm.weight" else "most.safetensors" for name in weights}
    index = {"metadata": {"total_size": 1}, "weight_map": shards}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_a_sharded_model_is_read(folder: Path, rewriter: Rewriter) -> None:
    norm = load_file(folder / "model.safetensors")["model.norm.weight"]
    shard(folder, "rest.safetensors")
    save_file({"model.norm.weight": norm}, folder / "rest.safetensors", {"format": "pt"})
    assert load_rewriter(folder).policy_hash == rewriter.policy_hash


def test_weights_outside_of_the_folder_are_not_read(folder: Path, tmp_path: Path) -> None:
    norm = load_file(folder / "model.safetensors")["model.norm.weight"]
    save_file({"model.norm.weight": norm}, tmp_path / "rest.safetensors", {"format": "pt"})
    shard(folder, "../rest.safetensors")
    with pytest.raises(RewriterError, match=r"maps 'model\.norm\.weight' to '\.\./rest\.safetensors'"):
        load_rewriter(folder)


def test_a_saved_pickle_behind_an_index_is_not_opened(folder: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "exploded",)

    shard(folder, "rest.pth.safetensors")
    torch.save({"model.norm.weight": Bomb()}, folder / "rest.pth.safetensors")
    with pytest.raises(RewriterError, match=r"rest\.pth\.safetensors may need unpickling"):
        load_rewriter(folder)
    assert not (tmp_path / "exploded").exists()


def test_the_base_of_an_adapter_is_not_looked_for(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "base")
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path / "base")}))
    with pytest.raises(RewriterError, match=r"adapter_config\.json is of an adapter"):
        load_rewriter(folder)


@pytest.mark.parametrize("change", [{"num_hidden_layers": 10**9}, {"text_config": {"num_hidden_layers": 10**9}}])
def test_a_billion_layers_are_not_built(folder: Path, change: dict) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    began = time.monotonic()
    with pytest.raises(RewriterError, match="asks for 1000000000"):
        load_rewriter(folder)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "intermediate_size"])
def test_room_is_not_made_for_weights_that_are_not_there(folder: Path, key: str) -> None:
    """A vocabulary of ten million had taken 1.2 GB before it was refused."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: 10**7}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RewriterError, match=r"a model of [\d,]+ weights, and there are 3\d,\d\d\d"):
        load_rewriter(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


@pytest.mark.parametrize("key", ["hidden_act", "num_attention_heads", "head_dim", "dtype", "model_type", "rope_parameters"])
@pytest.mark.parametrize("value", ["x", 0, [1], {"a": 1}])
def test_an_odd_configuration_is_one_error(folder: Path, key: str, value: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    with suppress(RewriterError):  # or it is read as something that fits
        load_rewriter(folder)


def test_a_folder_asks_no_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    for name in ("AutoTokenizer", "AutoModelForCausalLM"):
        loader = getattr(artifact, name).from_pretrained
        spy = lambda *args, loader=loader, **kw: asked.append(kw.get("local_files_only")) or loader(*args, **kw)  # noqa: E731
        monkeypatch.setattr(getattr(artifact, name), "from_pretrained", spy)
    load_rewriter(folder)
    assert asked == [True, True]


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub with the model `someone/decoder`; nothing is reached."""
    constants = importlib.import_module("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    root = tmp_path / "hub" / "models--someone--decoder"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("0" * 40)
    return Path(shutil.copytree(folder, root / "snapshots" / ("0" * 40)))


def test_a_model_is_read_by_its_name_from_the_cache(hub: Path, rewriter: Rewriter) -> None:
    (hub / "pytorch_model.bin").write_bytes(b"never read")
    assert load_rewriter("someone/decoder").policy_hash == rewriter.policy_hash


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("adapter_config.json", {"base_model_name_or_path": "someone/else"}),
        ("config.json", {"model_type": "llama", "attn_implementation": "evil/kernel"}),
        ("model.safetensors.index.json", {"metadata": {}, "weight_map": {"a": "../../../x.safetensors"}}),
    ],
)
def test_a_model_of_the_hub_is_checked_as_a_folder_is(hub: Path, name: str, content: dict) -> None:
    (hub / name).write_text(json.dumps(content))
    with pytest.raises(RewriterError, match=name):
        load_rewriter("someone/decoder")
    if name == "model.safetensors.index.json":
        check_model("someone/decoder")  # looks at the configuration alone
        return
    with pytest.raises(RewriterError, match=name):
        check_model("someone/decoder")


def test_a_name_that_is_not_in_the_cache(hub: Path) -> None:
    with pytest.raises(RewriterError, match="cannot load someone/other"):
        load_rewriter("someone/other")


@pytest.mark.parametrize("missing", ["nowhere", "./nowhere", "~nobody/model"])
def test_a_missing_folder(tmp_path: Path, missing: str) -> None:
    with pytest.raises(RewriterError, match="is not a folder"):
        load_rewriter(tmp_path / missing)
    if missing != "nowhere":
        with pytest.raises(RewriterError, match="is not a folder"):
            load_rewriter(missing)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(RewriterError, match=r"holds no \*\.safetensors"):
        load_rewriter(tmp_path)


def spoil(folder: Path, name: str, change) -> None:
    path = folder / name
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("model.safetensors", lambda b: b[:-40], "cannot load"),
        ("model.safetensors", lambda b: b"", r"a model of [\d,]+ weights, and there are 0"),
        ("config.json", lambda b: b"{", r"config\.json is not JSON"),
        ("config.json", lambda b: b.replace(b'"hidden_size": 32', b'"hidden_size": 16'), "cannot load"),
        (
            "config.json",
            lambda b: b.replace(b'"num_hidden_layers": 2', b'"num_hidden_layers": 3'),
            r"lacks \d+ weights of its config, model\.layers\.2\.",
        ),
        ("tokenizer.json", lambda b: b"{", "cannot load"),
        ("prompt_template.json", lambda b: b"{", r"prompt_template\.json: "),
        ("prompt_template.json", lambda b: b.replace(b'"format": 2', b'"format": 9'), "format that this version"),
    ],
)
def test_a_damaged_folder(folder: Path, name: str, change, message: str) -> None:
    before = (folder / name).read_bytes()
    spoil(folder, name, change)
    assert (folder / name).read_bytes() != before
    with pytest.raises(RewriterError, match=message):
        load_rewriter(folder)


def test_a_tokenizer_without_end_of_sequence_is_refused(folder: Path) -> None:
    spoil(folder, "tokenizer_config.json", lambda b: b.replace(b'"eos_token": "<|end|>"', b'"eos_token": null'))
    with pytest.raises(RewriterError, match="no end-of-sequence token"):
        load_rewriter(folder)


def test_a_copied_folder_is_the_same_policy(folder: Path, rewriter: Rewriter, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    assert load_rewriter(tmp_path / "copy").policy_hash == rewriter.policy_hash


@pytest.mark.parametrize("length", ["far", [1], {"a": 1}])
def test_a_tokenizer_that_fails_when_it_is_used_does_not_load(folder: Path, length: object) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": length}))
    with pytest.raises(RewriterError, match="cannot load"):
        load_rewriter(folder)
