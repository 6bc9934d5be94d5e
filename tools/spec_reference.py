"""Writes docs/reference/fusion-spec.md: every key of a fusion spec, from the classes that read it."""

from importlib.resources import files

from settings_reference import load_rows, table

from corewrite.fusion import FusionSpec

PAGE = "reference/fusion-spec.md"
HEAD = """\
# The fusion spec

Made by `python tools/reference.py` from `corewrite.fusion.spec`. One YAML file, named by `ranker.spec` in
[corewrite.yaml](corewrite-yaml.md#ranker), is the ranker's formula, the training reward and what is compiled to an engine. The
formula, its bounds and what *absent* and *unmatched* mean: [The fusion algebra](../concepts/algebra.md). How to choose the
numbers: [Tune](../how-to/tune.md). A spec that is refused is refused with file, line, value and fix.

`NAME` of a signal is `relevance`, `dense`, `prior` or a name of yours in `ranker.signals`.
"""
EXAMPLE = """
## The packaged default

`src/corewrite/fusion/default.yaml`, what is used where no spec is named:

```yaml
"""
RULES = """
## Rules

- `0 < lo <= 1 <= hi`: a rewrite can always be neutral.
- The exponent of a rewrite signal that is also an original signal is at most half of the original's: at the same exponent the
  original would cancel out.
- `depths.protected` is at least `depths.finerank`: every document that reaches finerank without a rewriter reaches it with one.
- `n` goes with `relative_to: constant`, and only with it.
- A signal stands once in a stage's `original` and once in its `rewrite`.
- A weight of the reward is above 0 where the stages that it counts use the rewrite (`reach_weight`: recall or rawrank), unless
  `zero_weight_reason` says why not: nothing would reward what the rewrite does there.
- A spec that names no `version` is of version 1, whose reward is finerank's alone: it ranks, hashes and rewards as ever. Its
  `reward` has `stage_weights` and `recall_weight`; a weight above 0 of rawrank or recall is still read and replayed, but no
  longer trained under: write `version: 2` and a `reach_weight`.
- The content hash (`spec_hash`) does not change with comments, the order of keys or defaults that are spelled out.
"""


def page() -> str:
    """The page."""
    rows = [(path.removeprefix("spec."), field, text) for path, field, text in load_rows("spec", FusionSpec)]
    default = (files("corewrite.fusion") / "default.yaml").read_text("utf-8")
    return HEAD + table(rows) + RULES + EXAMPLE + default.rstrip() + "\n```\n"
