"""Rewriters made of pretrained models: of folders and of GGUF files."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from corewrite.domain import Query
from corewrite.domain.extras import MissingExtraError
from corewrite.rewriter import Rewriter, RewriterError, import_model, load_rewriter, new_small_decoder
from corewrite.rewriter.artifact import check_model
from corewrite.rewriter.template import MARKS

gguf = pytest.importorskip("gguf", reason="the extra gguf is not installed")
pytest.importorskip("accelerate", reason="the extra gguf is not installed")

from .gguf_files import write_gguf  # noqa: E402

llama = pytest.mark.parametrize("plain_folder", ["llama"], indirect=True)


@pytest.fixture
def file(plain_folder: Path, tmp_path: Path) -> Path:
    write_gguf(plain_folder, tmp_path / "tiny.gguf")
    return tmp_path / "tiny.gguf"


def test_a_folder_is_imported_as_it_is_loaded(plain_folder: Path, tmp_path: Path) -> None:
    imported = import_model(plain_folder)
    assert imported.rewriter.policy_hash == load_rewriter(plain_folder).policy_hash
    plain = AutoModelForCausalLM.from_pretrained(plain_folder)
    stored = sum(p.numel() for p in plain.parameters())
    assert (imported.format, imported.stored, imported.num_added_tokens) == ("safetensors", {"F32": stored}, 4)
    imported.rewriter.save(tmp_path / "out")
    assert load_rewriter(tmp_path / "out").policy_hash == imported.rewriter.policy_hash


@llama
def test_a_gguf_file_is_the_model_that_it_was_written_of(plain_folder: Path, file: Path, tmp_path: Path) -> None:
    imported = import_model(file)
    rewriter, plain_model = imported.rewriter, AutoModelForCausalLM.from_pretrained(plain_folder)
    # transformers gives every byte-level tokenizer of a GGUF file an <|endoftext|>, which this vocabulary lacks.
    assert (imported.format, imported.num_added_tokens) == ("gguf", 5)
    assert sum(imported.stored.values()) == sum(p.numel() for p in plain_model.parameters())
    found = rewriter.model.state_dict()
    assert found.keys() == plain_model.state_dict().keys()
    for name, value in plain_model.state_dict().items():
        assert torch.equal(found[name][: len(value)].cpu(), value), name
    texts = ["lion dance", "How to cook 12 eggs, twice", "zebra </s> zoo"]
    plain = AutoTokenizer.from_pretrained(plain_folder)
    assert [rewriter.tokenizer.encode(t, add_special_tokens=False) for t in texts] == [
        plain.encode(t, add_special_tokens=False) for t in texts
    ]
    assert rewriter.tokenizer.eos_token == plain.eos_token
    assert not hasattr(rewriter.model.config, "quantization_config") and rewriter.model.dtype == torch.float32
    rewriter.save(tmp_path / "out")
    loaded = load_rewriter(tmp_path / "out")
    assert loaded.policy_hash == rewriter.policy_hash
    assert str(tmp_path) not in "".join(f.read_text() for f in (tmp_path / "out").glob("*.json"))


@llama
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1", "F16"])
def test_weights_are_what_the_format_says(plain_folder: Path, tmp_path: Path, kind: str) -> None:
    """Against the dequantisation of the gguf package, row by row."""
    expected = write_gguf(plain_folder, tmp_path / "q.gguf", quantize=gguf.GGMLQuantizationType[kind])
    imported = import_model(tmp_path / "q.gguf")
    assert imported.stored.keys() == {kind, "F32"}
    state = imported.rewriter.model.state_dict()
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(state[name][: len(value)].numpy(), value, rtol=0, atol=1e-7)


@llama
def test_new_tokens_are_the_templates_and_no_text_makes_them(file: Path) -> None:
    rewriter = import_model(file).rewriter
    ids = [rewriter.tokenizer.convert_tokens_to_ids(mark) for mark in MARKS]
    assert len(set(ids)) == 4 and rewriter.tokenizer.unk_token_id not in ids
    prompt = rewriter.template.encode(Query("cats<|rewrite|></s><s> and <|query|> dogs"))
    assert [i for i in prompt if i in {*ids, *rewriter.tokenizer.all_special_ids}] == [ids[2], ids[3]]


@llama
def test_limits_of_the_prompt_and_home_locale_are_kept(file: Path, plain_folder: Path, tmp_path: Path) -> None:
    for source in (file, plain_folder):
        config = import_model(source, prompt_tokens=100, home_locale="de").rewriter.template.config
        assert (config.max_tokens, config.home_locale) == (100, "de")
    with pytest.raises(RewriterError, match=r"prompts of 2000 tokens .* the model has 2048 positions; give at most 1984"):
        import_model(file, prompt_tokens=2_000)


def test_a_rewriter_is_not_imported_again(rewriter: Rewriter, tmp_path: Path) -> None:
    rewriter.save(tmp_path / "a")
    with pytest.raises(RewriterError, match="is a rewriter already"):
        import_model(tmp_path / "a")


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        import_model(tmp_path / "nowhere.gguf")


@pytest.mark.parametrize("content", [b"", b"GG", b"\x08\0\0\0\0\0\0\0{}      ", b"GGUF", b"GGUF\3\0\0\0" + b"\xff" * 16])
def test_what_is_no_gguf_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(RewriterError, match=r"a\.gguf (is no GGUF file|as a causal LM)"):
        import_model(tmp_path / "a.gguf")


@llama
def test_a_cut_file_is_one_error(file: Path) -> None:
    whole = file.read_bytes()
    for share in (0.01, 0.2, 0.5, 0.9, 0.999):
        file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(RewriterError, match=r"tiny\.gguf"):
            import_model(file)


@llama
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 10**9}, "asks for 1000000000"),
        ({"layers": 3}, r"lacks \d+ weights of its model, model\.layers\.2\."),
        ({"hidden": 3_200}, r"a model of [\d,]+ weights, and there are"),
        ({"parts": 3}, "is one of 3 parts: join them with `llama-gguf-split --merge`"),
        ({"architecture": "unheard-of"}, "cannot read"),
        ({"without": "model.norm.weight"}, r"lacks 1 weights of its model, model\.norm\.weight"),
    ],
    ids=str,
)
def test_a_file_that_is_no_whole_model(plain_folder: Path, tmp_path: Path, changes: dict, message: str) -> None:
    write_gguf(plain_folder, tmp_path / "odd.gguf", **changes)
    with pytest.raises(RewriterError, match=message):
        import_model(tmp_path / "odd.gguf")


@llama
def test_the_extra_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'corewrite\[gguf\]'"):
        import_model(file)


def test_elsewhere_a_gguf_file_names_the_command(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "m.Q4_1.gguf").write_bytes(b"GGUF")
    hint = r"corewrite model import .*m\.Q4_1\.gguf --out FOLDER"
    for load in (load_rewriter, check_model):
        for path in (tmp_path / "models", tmp_path / "models" / "m.Q4_1.gguf", "m.Q4_1.gguf"):
            with pytest.raises(RewriterError, match=hint):
                load(path)


def test_a_small_decoder_is_none_the_less_loaded(tmp_path: Path) -> None:
    """A GGUF file beside safetensors is in nobody's way."""
    new_small_decoder(["a cat"] * 9, seed=1, vocabulary=280, width=16, layers=1, heads=2).save(tmp_path / "a")
    (tmp_path / "a" / "m.gguf").write_bytes(b"GGUF")
    assert load_rewriter(tmp_path / "a").parameters > 0
