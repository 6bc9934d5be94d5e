"""The fusion spec in the language of the user's own engine: the same formula, walked and written out."""

from corewrite.fusion.compilers.engines import ENGINES, compile_spec, engine_names
from corewrite.fusion.compilers.features import CompileError
from corewrite.fusion.compilers.placeholders import fill

__all__ = ["ENGINES", "CompileError", "compile_spec", "engine_names", "fill"]
