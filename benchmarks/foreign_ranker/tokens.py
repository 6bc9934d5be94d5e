"""Sub-words of queries and documents: words of the catalogue and the log, their pieces, and those of typing errors in them."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import NFKC, Lowercase
from tokenizers.normalizers import Sequence as InTurn
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from corewrite.domain import Catalogue, words

IntArray = npt.NDArray[np.int64]

PAD, UNKNOWN, CLS, SEP = range(4)
"""Ids of the special tokens; every id above them is a sub-word."""
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_ERRORS_PER_WORD, _FREQUENT, _MOST = 12, 3, 200
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def document_texts(catalogue: Catalogue) -> list[str]:
    """What the ranker reads of each document: title, then its further text."""
    return [f"{title} {text}".strip() for title, text in zip(catalogue.titles, catalogue.texts, strict=True)]


def mistype(word: str, rng: np.random.Generator) -> str:
    """`word` with one letter left out, doubled, swapped with the next or replaced; words under four letters as they are."""
    if len(word) < 4:
        return word
    at = int(rng.integers(1, len(word) - 1))
    head, here, tail = word[:at], word[at], word[at + 1 :]
    return (
        head + tail,
        head + here + here + tail,
        head + tail[0] + here + tail[1:],
        head + _LETTERS[int(rng.integers(len(_LETTERS)))] + tail,
    )[int(rng.integers(4))]


def make_tokenizer(documents: Sequence[str], queries: Sequence[str], *, vocabulary: int, seed: int) -> Tokenizer:
    """A WordPiece tokenizer (longest match first) of the words and pieces of words at hand.

    Words of three texts or more are sub-words as they are. The rest of the vocabulary are the pieces that cover most letters
    of all words and of typing errors in them, so that a misspelt word falls into pieces that mean something. The library's own
    trainers break ties by chance: the same texts would give another ranker every time.

    Args:
        documents: Texts of the catalogue.
        queries: Texts of the log, each as often as typed.
        vocabulary: Sub-words at most, special tokens included.
        seed: Of the typing errors.
    """
    rng = np.random.default_rng([seed, 61])
    counts = Counter(word for text in (*documents, *queries) for word in words(text))
    frequent = sorted((w for w, n in counts.items() if n >= _FREQUENT), key=lambda w: (-counts[w], w))
    weights = Counter({word: min(n, _MOST) for word, n in counts.items()})
    for word in frequent:
        weights.update(mistype(word, rng) for _ in range(_ERRORS_PER_WORD))
    covered: Counter[str] = Counter()
    for word, n in weights.items():
        for start in range(len(word)):
            for end in range(start + 2, len(word) + 1):
                covered[("##" if start else "") + word[start:end]] += n * (end - start - 1)
    pieces = sorted(covered, key=lambda piece: (-covered[piece], piece))
    letters = sorted({letter for word in weights for letter in word})
    everything = dict.fromkeys([*_SPECIAL, *letters, *(f"##{letter}" for letter in letters), *frequent, *pieces])
    known = {piece: i for i, piece in enumerate(list(everything)[:vocabulary])}
    tokenizer = Tokenizer(WordPiece(known, unk_token=_SPECIAL[UNKNOWN], max_input_chars_per_word=100))
    tokenizer.normalizer = InTurn([NFKC(), Lowercase()])
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    tokenizer.enable_padding(pad_id=PAD, pad_token=_SPECIAL[PAD])
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str], most: int) -> IntArray:
    """Sub-words of each text without special tokens, int64 [texts, width], padded with `PAD`, `most` a text at most."""
    rows = [e.ids[:most] for e in _unpadded(tokenizer).encode_batch_fast(list(texts), add_special_tokens=False)]
    out = np.full((len(rows), max([1, *map(len, rows)])), PAD, np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def _unpadded(tokenizer: Tokenizer) -> Tokenizer:
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_padding()
    plain.no_truncation()
    return plain
