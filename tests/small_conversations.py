"""A small hand-made set of conversations in the form of the real ones."""

import json

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

PASSAGES = {
    "p/1": "Throat cancer is a cancer of the throat; smoking is its main cause.",
    "p/2": "Symptoms of throat cancer are a sore throat and trouble swallowing.",
    "p/3": "Treatment of throat cancer is surgery or radiation.",
    "p/4": "Lung cancer begins in the lungs; its symptoms are a cough and chest pain.",
    "q/1": "Bicycles have two wheels and a chain.",
    "q/2": "A bicycle chain is oiled every month, or it rusts.",
    "q/3": "Bicycle tyres are pumped to the pressure that stands on them.",
    "r/1": "Bread rises by yeast.",
    **{f"s/{i}": f"Other matter, number {i}." for i in range(22)},
}


def turn(conversation, number, query, human, earlier, shown, passage, collection="made"):
    return {
        "collection": collection,
        "conversation": conversation,
        "turn": number,
        "query": query,
        "human_rewrite": human,
        "earlier_queries": earlier,
        "earlier_passages": shown,
        "passage": passage,
    }


THROAT, BICYCLE = "What is throat cancer?", "What are the parts of a bicycle?"
TURNS = [
    turn("c/1", "1", THROAT, THROAT, [], [], "p/1"),
    turn("c/1", "2", "What are its symptoms?", "symptoms of throat cancer", [THROAT], ["p/1"], "p/2"),
    turn(
        "c/1",
        "3",
        "How is it treated?",
        "treatment of throat cancer",
        [THROAT, "What are its symptoms?"],
        ["p/1", "p/2"],
        "p/3",
    ),
    turn("c/2", "1", BICYCLE, BICYCLE, [], [], "q/1"),
    turn("c/2", "2", "How often is the chain oiled?", None, [BICYCLE], ["q/1"], "q/2"),
    turn(
        "c/2", "3", "And the pressure?", "pressure of bicycle tyres", [BICYCLE, "How often is it oiled?"], ["q/1", "q/2"], "q/3"
    ),
    turn("d/1", "2", "Does it have them too?", "symptoms of lung cancer", ["lung cancer"], [], "p/4", "other"),
    turn("d/1", "3", "Thanks!", "Thanks!", ["lung cancer", "Does it have them too?"], ["p/4"], None, "other"),
]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_small_set(folder):
    """Files of turns and passages."""
    turns, passages = folder / "turns.jsonl", folder / "passages.jsonl"
    turns.write_text(lines(TURNS), "utf-8")
    passages.write_text(lines([{"id": i, "text": t} for i, t in PASSAGES.items()]), "utf-8")
    return turns, passages


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "cat", "dog", "bird", "sat", "mat", "ran", "far", "throat", "cancer", "chain"]


def tiny_encoder(folder):
    """The folder of a BERT with random weights and twelve positions."""
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=12, initializer_range=0.5,
    )  # fmt: skip
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    words.normalizer, words.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    words.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    return folder
