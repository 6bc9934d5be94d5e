"""The nouns: frozen dataclasses and pure helpers; the only I/O is reading settings."""

from corewrite.domain.catalogue import Catalogue
from corewrite.domain.documents import ColumnValues, Documents
from corewrite.domain.file_types import CODE, PICKLES
from corewrite.domain.hashing import hash_share, sha256_chunks, sha256_json, sha256_text
from corewrite.domain.instance import TrainingInstance
from corewrite.domain.keyed_random import keyed_bits, keyed_uniform, text_key
from corewrite.domain.provenance import Provenance
from corewrite.domain.query import Context, Query
from corewrite.domain.query_codec import query_columns, query_from_json, query_from_row, query_to_json, query_to_row
from corewrite.domain.settings import PluginSettings, Settings, read_settings
from corewrite.domain.status import Outcome, SignalStatus
from corewrite.domain.strict_yaml import ConfigError
from corewrite.domain.text import drops_protected, is_identity, normalise, words

__all__ = [
    "CODE",
    "PICKLES",
    "Catalogue",
    "ColumnValues",
    "ConfigError",
    "Context",
    "Documents",
    "Outcome",
    "PluginSettings",
    "Provenance",
    "Query",
    "Settings",
    "SignalStatus",
    "TrainingInstance",
    "drops_protected",
    "hash_share",
    "is_identity",
    "keyed_bits",
    "keyed_uniform",
    "normalise",
    "query_columns",
    "query_from_json",
    "query_from_row",
    "query_to_json",
    "query_to_row",
    "read_settings",
    "sha256_chunks",
    "sha256_json",
    "sha256_text",
    "text_key",
    "words",
]
