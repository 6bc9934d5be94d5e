"""Specs that are refused, with the file, the line, the value and the fix."""

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewrite.fusion import FusionSpec, SpecError, parse_spec

ORIGINAL = "{signal: rel, eps: 0.001, exponent: 1}"
REWRITE = "{signal: rel, eps: 0.03, lo: 0.25, hi: 4, exponent: 0.5}"
TEXT = f"""\
# line 1
rawrank:
  original:
    - {ORIGINAL}
finerank:
  original:
    - {ORIGINAL}
  rewrite:
    - {REWRITE}
depths: {{finerank: 80, protected: 90}}
"""
SECOND = TEXT + "version: 2\n"
# Where things stand in TEXT.
TOP, RAW, FINERANK, FACTOR, DEPTHS = 1, 4, 5, 9, 10


def rewrite(old: str, new: str) -> str:
    assert old in REWRITE
    return TEXT.replace(REWRITE, REWRITE.replace(old, new))


def original(old: str, new: str) -> str:
    head, tail = TEXT.split(ORIGINAL, 1)
    return head + ORIGINAL.replace(old, new) + tail


REFUSED = {
    "lo above 1": (rewrite("lo: 0.25", "lo: 1.5"), FACTOR, "lo 1.5 must be at most 1"),
    "hi below 1": (rewrite("hi: 4", "hi: 0.5"), FACTOR, "hi 0.5 must be at least 1"),
    "lo 0": (rewrite("lo: 0.25", "lo: 0"), FACTOR, r"lo: .*greater than 0 \(got 0\)"),
    "lo negative": (rewrite("lo: 0.25", "lo: -1"), FACTOR, r"lo: .*greater than 0 \(got -1\)"),
    "b negative": (rewrite("exponent: 0.5", "exponent: -0.1"), FACTOR, r"exponent: .*\(got -0.1\)"),
    "b above a/2": (rewrite("exponent: 0.5", "exponent: 0.51"), FINERANK, "0.51 of .* must be at most half"),
    "eps 0": (rewrite("eps: 0.03", "eps: 0"), FACTOR, r"eps: .*greater than 0"),
    "nan": (rewrite("hi: 4", "hi: .nan"), FACTOR, r"hi: .*\(got nan\)"),
    "inf": (rewrite("hi: 4", "hi: .inf"), FACTOR, r"hi: .*finite.*\(got inf\)"),
    "inf as text": (rewrite("hi: 4", "hi: 1e999"), FACTOR, r"hi: .*finite"),
    "exponent of the original 0": (original("exponent: 1", "exponent: 0"), RAW, "greater than 0"),
    "exponent of the original nan": (original("exponent: 1", "exponent: .nan"), RAW, "exponent: "),
    "top at eps": (original("exponent: 1", "top: 0.001"), RAW, "top 0.001 must be above eps 0.001"),
    "unknown key": (rewrite("lo:", "low:"), FACTOR, r"rewrite.0.low: unknown name; did you mean 'lo'\?"),
    "unknown top key": (TEXT + "rerank: {}\n", 11, "rerank: unknown name; did you mean 'rawrank'"),
    "unknown form": (rewrite("eps", "relative_to: mean, eps"), FACTOR, "'original' or 'constant'"),
    "n without constant": (rewrite("eps", "n: 0.5, eps"), FACTOR, "n goes with relative_to: constant"),
    "constant without n": (
        rewrite("eps", "relative_to: constant, eps"), FACTOR, "n goes with relative_to: constant",
    ),
    "n 0": (rewrite("eps", "relative_to: constant, n: 0, eps"), FACTOR, "n: .*greater than 0"),
    "duplicate original": (
        TEXT.replace(f"    - {ORIGINAL}\n  rewrite", f"    - {ORIGINAL}\n    - {ORIGINAL}\n  rewrite"),
        FINERANK, "original signal 'rel' stands twice",
    ),
    "duplicate rewrite": (
        TEXT.replace(f"- {REWRITE}", f"- {REWRITE}\n    - {REWRITE}"),
        FINERANK, "rewrite signal 'rel' stands twice",
    ),
    "empty name": (original("signal: rel", "signal: ''"), RAW, "signal: .*at least 1 character"),
    "no signal": (original("signal: rel, ", ""), RAW, "original.0.signal: Field required"),
    "no eps": (original("eps: 0.001, ", ""), RAW, "original.0.eps: Field required"),
    "missing stage": (TEXT[TEXT.index("finerank:"):], TOP, "rawrank: Field required"),
    "missing original": ("finerank: {original: []}\n\nrawrank: {}", 3, "rawrank.original: Field required"),
    "protected below finerank": (
        TEXT.replace("protected: 90", "protected: 79"), DEPTHS, "protected 79 must be at least finerank 80",
    ),
    "no candidates": (TEXT + "recall: {original_candidates: 0}", 11, "original_candidates: .*equal to 1"),
    "negative candidates": (TEXT + "recall: {rewrite_candidates: -1}", 11, "candidates: .*equal to 0"),
    "half a candidate": (TEXT + "recall: {rewrite_candidates: 1.5}", 11, r"candidates: .*\(got 1.5\)"),
    "reward stage": (TEXT + "reward: {stage_weights: {recall: 1}}", 11, "stage_weights.recall"),
    "negative reward": (TEXT + "reward:\n  stage_weights:\n    finerank: -1", 13, "stage_weights.finerank"),
    "nan reward": (TEXT + "reward: {recall_weight: .nan}", 11, r"recall_weight: .*\(got nan\)"),
    "nan reach": (SECOND + "reward: {reach_weight: .nan}", 12, r"reach_weight: .*\(got nan\)"),
    "negative reach": (SECOND + "reward:\n  reach_weight: -1", 13, r"reach_weight: .*\(got -1\)"),
    "other version": (TEXT + "version: 3", 11, r"version: .*\(got 3\)"),
    "version 1's reward in version 2": (SECOND + "reward: {recall_weight: 0}", 12, "recall_weight: unknown name"),
    "version 2's reward in version 1": (TEXT + "reward: {reach_weight: 1}", 11, "reach_weight is of version 2: .*version: 2"),
    "reach not weighed": (
        SECOND + "reward:\n  reach_weight: 0", 12, "reach_weight is 0 but recall uses the rewrite.*zero_weight_reason",
    ),
    "reach not weighed: rawrank": (
        SECOND.replace("finerank:\n", f"  rewrite:\n    - {REWRITE}\nfinerank:\n", 1) + "reward: {reach_weight: 0}", 14,
        "reach_weight is 0 but recall and rawrank use the rewrite",
    ),
    "finerank not weighed": (
        SECOND + "reward: {finerank_weight: 0}", 12, "finerank_weight is 0 but finerank uses the rewrite",
    ),
    "no reason": (
        SECOND + "reward: {finerank_weight: 0, zero_weight_reason: '  '}", 12, r"zero_weight_reason: .*pattern",
    ),
    "wrong type: text": (rewrite("lo: 0.25", "lo: low"), FACTOR, r"lo: .*number.*\(got 'low'\)"),
    "wrong type: list": (rewrite("lo: 0.25", "lo: [1]"), FACTOR, "lo: .*valid number$"),
    "wrong type: null": (rewrite("lo: 0.25", "lo: null"), FACTOR, r"lo: .*\(got None\)"),
    "wrong type: date": (rewrite("lo: 0.25", "lo: 2020-01-01"), FACTOR, "lo: .*number"),
    "wrong type: yes": (rewrite("lo: 0.25", "lo: yes"), FACTOR, "lo: must be a number .YAML reads yes"),
    "wrong type: true count": (TEXT + "recall: {rewrite_candidates: true}", 11, "must be a number"),
    "wrong type: number as name": (rewrite("signal: rel", "signal: 3"), FACTOR, "signal: .*string"),
    "wrong type: depths": (TEXT[: TEXT.index("{finerank")] + "3", DEPTHS, r"depths: .*\(got 3\)"),
    "wrong type: signals": ("rawrank: {original: 3}\nfinerank: {original: []}", 1, "rawrank.original: "),
    "a key of another type": (TEXT + "3: 4", 11, "3: Keys should be strings"),
    "not YAML": ("rawrank: {original: [\nfinerank: ]", 2, "not valid YAML"),
    "not YAML: tab": ("rawrank:\n\toriginal: []", 2, "not valid YAML.*cannot start any token"),
    "two documents": (TEXT + "---\n" + TEXT, 11, "not valid YAML.*another doc"),
    "control character": ("a: 1\nb: \x00", 2, "not valid YAML.*special characters are not allowed"),
    "code": ("rawrank: !!python/object/apply:os.getcwd []", 1, "not valid YAML.*could not determine"),
    "impossible date": (rewrite("lo: 0.25", "lo: 2020-13-45"), FACTOR, "'2020-13-45' is not a value"),
    "escape beyond Unicode": ("# 1\nrawrank: \"\\U00110000\"", 2, "an escape or a number beyond any use"),
    "escape beyond C": ("# 1\nrawrank: \"\\Uffffffff\"", 2, "an escape or a number beyond any use"),
    "huge version": ("%YAML 1." + "9" * 5_000 + "\n---\n" + TEXT, 1, "an escape or a number beyond any use"),
    "huge base 60": (rewrite("lo: 0.25", "lo: 1" + ":1" * 200 + ".5"), FACTOR, "is not a value of type .*float"),
    "list as a mapping": ("rawrank: !!map [a]", 1, "expected a mapping node"),
    "key for a terminal": (TEXT + '"\\e[31m\\na": 1', 11, r"'\\x1b\[31m\\na': unknown name"),
    "key of blanks": (TEXT + "'  ': 1", 11, "'  ': unknown name"),
    "long key": (TEXT + "? " + "a" * 5_000 + "\n: 1", 11, "a: unknown name"),
    "wrong tag": (rewrite("lo: 0.25", "lo: !!bool 3"), FACTOR, "'3' is not a value of type .*bool"),
    "duplicate key": (rewrite("lo: 0.25", "lo: 0.25, lo: 1"), FACTOR, "key 'lo' stands twice"),
    "duplicate stage": (TEXT + "rawrank: {original: []}", 11, "key 'rawrank' stands twice"),
    "duplicate in other words": (TEXT + "yes: 1\ntrue: 2", 12, "key 'true' stands twice"),
    "duplicate number": (TEXT + "1: 1\n0x1: 2", 12, "key '0x1' stands twice"),
    "duplicate in quotes": (rewrite("lo: 0.25", "lo: 0.25, 'lo': 1"), FACTOR, "key 'lo' stands twice"),
    "duplicate by a merge": (rewrite("lo: 0.25", "lo: 0.25, <<: {lo: 1}"), FACTOR, "merges"),
    "duplicate in a merge": (rewrite("lo: 0.25", "<<: [{lo: 0.25}, {lo: 1}]"), FACTOR, "merges"),
    "set as a key": (TEXT + "!!set : 1", 11, "of type .*set cannot be a key"),
    "pairs as a key": (TEXT + "!!pairs : 1", 11, "of type .*pairs cannot be a key"),
    "huge number": (TEXT + "recall: {rewrite_candidates: 0x" + "f" * 9999 + "}", 11, "too large a number"),
    "alias": (TEXT.replace(f"- {REWRITE}", f"- &a {REWRITE}\n    - *a"), FACTOR + 1, "aliases"),
    "cycle": ("rawrank: &a\n  original: *a", 2, "aliases"),
    "not a mapping: empty": ("", TOP, "rawrank: Field required"),
    "not a mapping: list": ("- 1", TOP, "must be a mapping .*, this is a list"),
    "not a mapping: text": ("spec", TOP, "must be a mapping .*, this is a str"),
    "nested lists": ("rawrank: " + "[" * 20_000, TOP, "nested too deeply"),
    "nested mappings": ("{a: " * 20_000, TOP, "nested too deeply"),
}  # fmt: skip


def test_the_text_that_is_spoilt_is_taken_as_it_is() -> None:
    assert parse_spec(TEXT).depths.protected == 90


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_file_line_and_reason(case: str) -> None:
    text, line, reason = REFUSED[case]
    with pytest.raises(SpecError, match=rf"^dir/spec\.yaml:{line}: (?s:.*){reason}") as caught:
        parse_spec(text, "dir/spec.yaml")
    assert len(str(caught.value)) < 500


def test_every_problem_is_listed() -> None:
    text = rewrite("lo: 0.25, hi: 4", "lo: -1, hi: 0").replace("protected: 90", "protected: 0")
    with pytest.raises(SpecError) as caught:
        parse_spec(text, "s")
    problems = [line.split(": ")[:2] for line in str(caught.value).splitlines()]
    assert problems == [
        [f"s:{FACTOR}", "finerank.rewrite.0.lo"],
        [f"s:{FACTOR}", "finerank.rewrite.0.hi"],
        [f"s:{DEPTHS}", "depths.protected"],
    ]


def bomb(kind: str, levels: int = 30) -> str:
    """A few hundred bytes that stand for 10 ** `levels` values."""
    lines = ["a0: &a0 {x: 1}" if kind == "merge" else "a0: &a0 [x, x]"]
    for i in range(1, levels):
        inner = ", ".join([f"*a{i - 1}"] * 10)
        lines.append(f"a{i}: &a{i} {{<<: [{inner}]}}" if kind == "merge" else f"a{i}: &a{i} [{inner}]")
    return "\n".join(lines)


@pytest.mark.parametrize("kind", ["lists", "merge"])
@pytest.mark.parametrize("place", ["{}", "rawrank:\n  original:\n{}"])
def test_alias_bombs_are_refused_at_once(kind: str, place: str) -> None:
    text = place.format(bomb(kind) if place == "{}" else bomb(kind).replace("a", "    a", 1))
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(SpecError, match=r"^bomb:\d+: not valid YAML"):
        parse_spec(text, "bomb")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.process_time() - start < 2
    assert peak < 10 * 2**20


FRAGMENTS = st.sampled_from(
    [
        *"{}[]:,-&*!|>'\"#\n ",
        "rawrank",
        "finerank",
        "original: ",
        "<<: ",
        "!!int ",
        "&a ",
        "*a",
        "1e5",
        ".inf",
        "0x",
        "\ud800",
    ]
)


@given(st.lists(FRAGMENTS | st.text(max_size=4), max_size=25).map("".join) | st.text())
def test_any_text_is_a_spec_or_a_spec_error(text: str) -> None:
    try:
        assert isinstance(parse_spec(text), FusionSpec)
    except SpecError as error:
        assert str(error).startswith("<string>:")


@given(st.integers(0, len(TEXT)), st.integers(0, 40), FRAGMENTS | st.text(max_size=3))
def test_a_spoilt_spec_is_a_spec_or_a_spec_error(start: int, cut: int, put: str) -> None:
    try:
        spec = parse_spec(TEXT[:start] + put + TEXT[start + cut :])
    except SpecError as error:
        assert str(error).startswith("<string>:")
    else:
        for stage in spec.stages.values():
            assert all(0 < j.lo <= 1 <= j.hi for j in stage.rewrite)
