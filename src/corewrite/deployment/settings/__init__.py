"""Settings of what ranks: the fusion spec, where each of its signals comes from, and what recalls; imports nothing heavy."""

from corewrite.deployment.settings.model_inputs import CalibrationSettings, Inputs, InputSettings
from corewrite.deployment.settings.ranker import DEFAULT_SIGNALS, RankerSection, RankerSettings
from corewrite.deployment.settings.recall import (
    EmbeddedRecall,
    OpenSearchRecall,
    PluginRecall,
    PythonRecall,
    QdrantRecall,
    RecallSettings,
    RedisRecall,
)
from corewrite.deployment.settings.secrets import keep_secrets, load_secret
from corewrite.deployment.settings.signals import (
    ClipSignal,
    ColumnSignal,
    CrossEncoderSignal,
    EmbeddedSignal,
    KServeSignal,
    LoggedSignal,
    ModelSettings,
    OnnxSignal,
    PluginSignal,
    PythonSignal,
    SignalSettings,
)

__all__ = [
    "DEFAULT_SIGNALS",
    "CalibrationSettings",
    "ClipSignal",
    "ColumnSignal",
    "CrossEncoderSignal",
    "EmbeddedRecall",
    "EmbeddedSignal",
    "InputSettings",
    "Inputs",
    "KServeSignal",
    "LoggedSignal",
    "ModelSettings",
    "OnnxSignal",
    "OpenSearchRecall",
    "PluginRecall",
    "PluginSignal",
    "PythonRecall",
    "PythonSignal",
    "QdrantRecall",
    "RankerSection",
    "RankerSettings",
    "RecallSettings",
    "RedisRecall",
    "SignalSettings",
    "keep_secrets",
    "load_secret",
]
