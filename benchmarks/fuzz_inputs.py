"""Inputs nobody would send: valid ones with bytes, tokens and structure broken. The same seed makes the same input."""

import json
import random
import re
from typing import Any

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\w.+-]+')
_BYTES = b"\x00\x01\x0a\x0d\x1b\x20\x22\x5c\x7f\x80\xc0\xff[]{}:,-&*!<>|%"
_BRACKETS = ((b"[", b"]"), (b"{", b"}"), (b'{"a":', b"}"), (b'"', b'"'), (b"(", b")"))

TEXTS = tuple(
    text.encode("utf-8", "surrogatepass")
    for text in (
        "\x00", "\x1b[31m", "\u202e", "\u2066", "\u200b", "\u200d", "\ufeff", "\u2028", "\x85", "\ud800", "\udfff",
        "\U0001f469", "e\u0301", "\u0130", "\ufdfa", "\uffff", "\ue000", "\U000e0001", " " * 200, "word " * 150, "x" * 700,
        "<|query|>", "<|rewrite|>", "<|<|query|>query|>", "<|title|>", "<|earlier|>", "<|endoftext|>", "<pad>", "</s>",
    )
)  # fmt: skip
"""Text that breaks a line, a direction, an encoding or a prompt."""

NUMBERS = (
    b"0", b"-1", b"-0", b"1", b"4", b"5", b"101", b"65", b"1.0", b"1.5", b"1e308", b"1e999", b"-1e999", b"1e-320", b"NaN",
    b"Infinity", b"-Infinity", b"9" * 25, b"9" * 4_299, b"9" * 4_301, b"0." + b"0" * 400 + b"1", b"9223372036854775808",
)  # fmt: skip
"""Numbers at and beyond every limit."""

JSON_WORDS = (
    b"null", b"true", b"false", b'""', b'" "', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"', b'"\\u202ea"', b'"\\n"',
    b"[]", b"{}", b"[null]", b'["a","a"]', b'{"query":"a"}', b'"' + b"y" * 513 + b'"', b"[" + b'"b",' * 60 + b'"b"]',
    b'"query"', b'"context"', b'"queries"', b'"titles"', b'"locale"', b'"batch"', b'"rewrites"', b'"deadline_ms"',
    b'"client_id"', b'"session_id"', b'"depth"', b'"explain"', b'"rewrite"', b'"__class__"', b'"\\ud800":1', b"/**/",
    b"\xff\xfe",
)  # fmt: skip
"""Pieces of JSON."""

YAML_WORDS = (
    b"&a ", b"*a", b"&a [*a]", b"<<: {eps: 1}", b"<<: *a", b"<<: [{a: 1}, {a: 2}]", b"<<: 1",
    b"!!python/object/apply:os.system ", b"!!binary ", b"!!set ", b"!!omap ", b"!!pairs ", b"!!timestamp ", b"!!int ",
    b"!!float ", b"!!bool ", b"!!null ", b"!!str ", b"!!map ", b"!!seq ", b"!!value ", b"!!merge ", b"!a ", b"!<%ff> ",
    b"!<tag:yaml.org,2002:int> ", b"%YAML 1.1\n---\n", b"%YAML 9" + b"9" * 4_400 + b".1\n---\n", b"%TAG ! tag:a,b:\n---\n",
    b"---\n", b"...\n", b"? ", b"- ", b"|\n  ", b">-\n  ", b'"\\Uffffffff"', b'"\\U00110000"', b'"\\ud800"', b'"\\e[31m"',
    b'"a\\nb"', b'"\\q"', b".inf", b"-.inf", b".nan", b"0x1f", b"0x" + b"f" * 40, b"0o7", b"0b1", b"1:1:1",
    b"1:1" + b":1" * 200 + b".5", b"1_000", b"_", b"0_", b"2001-99-99", b"2001-12-14", b"2001-12-14t21:59:43.10-05:00",
    b"0000-00-00", b"9999-12-31t23:59:59-99:99", b"~", b"yes", b"no", b"on", b"=", b"\t", b"\n\t", b"\r", b"  ", b"\n",
    b"\n- ", b"{}", b"[]", b"{? a}", b"[a: b]", b": ", b"#", b"'", b"version", b"recall", b"rawrank", b"finerank", b"depths",
    b"reward", b"original", b"rewrite", b"signal", b"eps", b"top", b"exponent", b"relative_to", b"constant", b"n", b"lo",
    b"hi", b"use_rewrite", b"protected", b"stage_weights", b"recall_weight", b"finerank_weight", b"reach_weight",
    b"zero_weight_reason", b"a" * 1_100 + b": 1", b"\xff", b"\xed\xa0\x80",
)  # fmt: skip
"""Pieces of YAML, of a fusion spec among them."""


def mutate(rng: random.Random, data: bytes, other: bytes, words: tuple[bytes, ...], limit: int) -> bytes:
    """`data` with one to five things changed, at most `limit` bytes; `other` is what pieces are taken from."""
    for _ in range(1 + min(int(rng.expovariate(1.2)), 4)):
        data = rng.choice(_CHANGES)(rng, data, other, words)[:limit]
    return data


def _place(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + int(rng.expovariate(1 / 12)))


def _flip(rng: random.Random, data: bytes, other: bytes, words: tuple[bytes, ...]) -> bytes:
    if not data:
        return rng.randbytes(3)
    i = rng.randrange(len(data))
    new = data[i] ^ (1 << rng.randrange(8)) if rng.random() < 0.5 else rng.choice(_BYTES)
    return data[:i] + bytes([new]) + data[i + 1 :]


def _delete(rng: random.Random, data: bytes, other: bytes, words: tuple[bytes, ...]) -> bytes:
    a, b = _place(rng, data)
    return data[:a] + data[b:]


def _insert(rng: random.Random, data: bytes, other: bytes, words: tuple[bytes, ...]) -> bytes:
    a, _ = _place(rng, data)
    return data[:a] + rng.choice(words) + data[a:]


def _splice(rng: random.Random, data: bytes, other: bytes, words: tuple[bytes, ...]) -> bytes:
    a, b = _place(rng, data)
    c, _ = _place(rng, other)
    return data[:a] + other[c : c + 1 + int(rng.expovariate(1 / 40))] + data[b:]


def _again(rng: random.Random, data: bytes, other: bytes, words: tuple[bytes, ...]) -> bytes:
    a, b = _place(rng, data)
    return data[:b] + data[a:b] * rng.choice((1, 1, 2, 10, 100)) + data[b:]


def _token(rng: random.Random, data: bytes, other: bytes, words: tuple[bytes, ...]) -> bytes:
    """One value or key becomes another: what is between keeps its structure."""
    found = [m.span() for m in _TOKEN.finditer(data)]
    if not found:
        return _insert(rng, data, other, words)
    a, b = rng.choice(found)
    if rng.random() < 0.7:
        new = rng.choice(words)
    else:
        c, d = rng.choice(found)
        new = data[c:d]
    return data[:a] + new + data[b:]


def _into(rng: random.Random, data: bytes, other: bytes, words: tuple[bytes, ...]) -> bytes:
    """Odd text into the middle of a value."""
    found = [m.span() for m in _TOKEN.finditer(data)]
    a, b = rng.choice(found) if found else (0, len(data))
    i = rng.randint(a, b)
    return data[:i] + rng.choice(TEXTS) + data[i:]


def _json(rng: random.Random, data: bytes, other: bytes, words: tuple[bytes, ...]) -> bytes:
    """One value of a JSON document behind its first byte becomes another, and it stays JSON."""
    try:
        value = json.loads(data[1:])
    except (ValueError, RecursionError):
        return _token(rng, data, other, words)
    found: list[tuple[Any, Any]] = []
    todo = [value]
    while todo:
        node = todo.pop()
        if isinstance(node, dict | list):
            inner = list(node.items() if isinstance(node, dict) else enumerate(node))
            found += [(node, key) for key, _ in inner]
            todo += [v for _, v in inner]
    if not found:
        return _token(rng, data, other, words)
    node, key = rng.choice(found)
    text = rng.choice(TEXTS).decode("utf-8", "surrogatepass")
    kind, old = rng.randrange(6), node[key]
    if kind == 0:
        node[key] = text
    elif kind == 1 and isinstance(old, str):
        i = rng.randint(0, len(old))
        node[key] = old[:i] + text + old[i:]
    elif kind == 2:
        node[key] = [old] * rng.choice((1, 2, 51, 70))
    elif kind == 3 and isinstance(node, dict):
        node[rng.choice((text, key + text, "query", "context", "batch", "rewrite"))] = old
    elif kind == 4:
        node[key] = rng.choice((None, True, 0, -1, 1, 2, 1.0, 1e308, 10**20, "", [], {}, "a b", 0.001))
    else:
        node[key] = rng.choice(found)[0] if kind == 5 and rng.random() < 0.1 else f"{old} {rng.randrange(100)}"
    try:
        return data[:1] + json.dumps(value, ensure_ascii=rng.random() < 0.9).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):  # it holds itself
        return data


def _nest(rng: random.Random, data: bytes, other: bytes, words: tuple[bytes, ...]) -> bytes:
    """A value inside many brackets; depths about the interpreter's own limit among them."""
    found = [m.span() for m in _TOKEN.finditer(data)]
    a, b = rng.choice(found) if found else _place(rng, data)
    left, right = rng.choice(_BRACKETS)
    depth = rng.choice((1, 2, 3, 30, 100)) if rng.random() < 0.8 else rng.choice((300, rng.randint(900, 1_050), 4_000))
    return data[:a] + left * depth + data[a:b] + right * depth + data[b:]


def _lines(rng: random.Random, data: bytes, other: bytes, words: tuple[bytes, ...]) -> bytes:
    """A line twice, elsewhere, indented otherwise or gone."""
    lines = data.split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(4)
    if kind == 0:
        lines.insert(j, lines[i])
    elif kind == 1:
        lines[i], lines[j] = lines[j], lines[i]
    elif kind == 2:
        lines[i] = b" " * rng.randrange(6) + lines[i].lstrip()
    else:
        del lines[i]
    return b"\n".join(lines)


_CHANGES = (
    _flip, _flip, _delete, _insert, _splice, _again, _token, _token, _token, _token, _json, _json, _json, _json, _json, _into,
    _into, _nest, _lines,
)  # fmt: skip
