"""Tiny language models, made here: nothing is downloaded."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from corewrite.domain import Context, Query
from corewrite.rewriter import Example, Rewriter, fine_tune, new_small_decoder

PAIRS = {
    "lion": "red lion trailer",
    "rice": "how to cook rice",
    "rce": "rice",
    "eggs": "boil eggs",
    "cats": "funny cats",
    "dance": "lion dance",
}
TEXTS = [text for pair in PAIRS.items() for text in pair] * 10


@pytest.fixture
def rewriter() -> Rewriter:
    """Random weights."""
    return new_small_decoder(TEXTS, seed=1, vocabulary=300, width=32, layers=2, heads=2)


@pytest.fixture
def examples() -> list[Example]:
    """Six pairs, each in two contexts."""
    contexts = [Context(), Context(("earlier",), ("A title",), "en")]
    return [Example(Query(q, c), target) for q, target in PAIRS.items() for c in contexts]


@pytest.fixture(scope="session")
def trained() -> Rewriter:
    """Has learnt the pairs well enough to end its rewrites, not so well that samples are all alike. Not to be changed."""
    rewriter = new_small_decoder(TEXTS, seed=1, vocabulary=300, width=32, layers=2, heads=2)
    pairs = [Example(Query(q), target) for q, target in PAIRS.items()]
    fine_tune(rewriter, pairs, epochs=60, seed=1, batch=6, learning_rate=1e-2)
    return rewriter


@pytest.fixture
def queries() -> list[Query]:
    """Prompts of different lengths, one twice."""
    plain = [Query(q) for q in PAIRS]
    deep = Query("lion", Context(("zebra in the zoo", "cats"), ("The red lion", "Boil eggs"), "en"))
    return [*plain, deep, plain[0]]


def plain_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=290, special_tokens=sorted(set(special.values())), initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, **special)


@pytest.fixture(params=["gpt2", "llama"])
def plain_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A transformers folder that knows nothing of rewriting, as one comes from anywhere."""
    folder = tmp_path / request.param
    if request.param == "gpt2":
        tokenizer = plain_tokenizer(eos_token="<|endoftext|>", bos_token="<|endoftext|>")
        config = GPT2Config(
            vocab_size=len(tokenizer), n_positions=600, n_embd=32, n_layer=2, n_head=2,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        model = GPT2LMHeadModel(config)
    else:
        tokenizer = plain_tokenizer(bos_token="<s>", eos_token="</s>", unk_token="<unk>")
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
