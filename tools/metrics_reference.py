"""Writes docs/reference/metrics.md: what `corewrite serve` counts, from the registry of its metrics."""

from page_tables import table
from prometheus_client.metrics import MetricWrapperBase

from corewrite.serving.metrics import Metrics

PAGE = "reference/metrics.md"
HEAD = """\
# Metrics

Made by `python tools/reference.py` from `corewrite.serving.metrics`. `GET /metrics` gives them in Prometheus' text format.
With several workers counters are sums over all of them, gauges what the description says. A counter `NAME` is exposed as
`NAME_total`, a histogram as `NAME_bucket`, `NAME_sum` and `NAME_count`. What to watch:
[Serve](../how-to/serve.md#probes-and-metrics).

"""


def page() -> str:
    """The page."""
    metrics = [m for m in vars(Metrics()).values() if isinstance(m, MetricWrapperBase)]
    rows = []
    for metric in metrics:
        (described,) = metric.describe()
        name = described.name + ("_total" if described.type == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)
        rows.append((f"`{name}`", described.type, labels, described.documentation))
    return HEAD + table(("metric", "type", "labels", "meaning"), rows)
