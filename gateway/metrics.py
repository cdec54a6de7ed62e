"""OpenTelemetry metrics: their names, and the set-up.  As with traces, an exporter that is down changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from opentelemetry.metrics import Meter, NoOpMeter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricExporter, PeriodicExportingMetricReader

from gateway import __version__
from gateway.settings import Settings, TelemetrySettings
from gateway.telemetry import EXPORT_TIMEOUT_SECONDS, resource

UNMETERED: Meter = NoOpMeter("doorward")
"""Where nobody counts."""


class Metric(StrEnum):
    """Names of metrics."""

    MALFORMED = "doorward.documents.malformed"
    """Gauge, by `root`: documents in OPA that have no effect because they are malformed."""
    UNUSABLE = "doorward.policy.unusable_answers"
    """Counter, by `decision` (its path in OPA) and `failure` (the code of the deny): answers that were none."""
    POOL_READY = "doorward.pool.ready"
    """Gauge, by `backend`: warm workspaces that can be claimed now."""
    STARTS = "doorward.pool.starts"
    """Counter, by `backend`, `start` (warm or cold) and, where cold, `why`: workspaces that sessions were given."""


@contextmanager
def metering(settings: Settings) -> Iterator[Meter]:
    """The meter for this process; on exit what is pending is sent, for a bounded time."""
    with _exporter(settings) as exporter:
        readers = []
        if exporter is not None:
            milliseconds = settings.telemetry.metrics_seconds * 1000
            readers.append(
                PeriodicExportingMetricReader(
                    exporter, export_interval_millis=milliseconds, export_timeout_millis=EXPORT_TIMEOUT_SECONDS * 1000
                )
            )
        provider = MeterProvider(metric_readers=readers, resource=resource(settings), shutdown_on_exit=False)
        try:
            yield provider.get_meter("doorward", __version__)
        finally:
            provider.shutdown(timeout_millis=EXPORT_TIMEOUT_SECONDS * 1000)


@contextmanager
def _exporter(settings: Settings) -> Iterator[MetricExporter | None]:
    telemetry = settings.telemetry
    if not telemetry.metrics:
        yield None
    elif telemetry.exporter == "file":
        path = settings.state / "metrics.jsonl"
        with path.open("a") as out:
            path.chmod(0o600)
            yield ConsoleMetricExporter(out=out, formatter=lambda found: found.to_json(indent=None) + "\n")
    else:
        yield _otlp_exporter(telemetry)


def _otlp_exporter(telemetry: TelemetrySettings) -> MetricExporter | None:
    # Imported where used, as for traces.
    match telemetry.exporter:
        case "otlp_http":
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as Http

            base = (telemetry.endpoint or "http://127.0.0.1:4318").rstrip("/")
            return Http(endpoint=f"{base}/v1/metrics", timeout=EXPORT_TIMEOUT_SECONDS)
        case "otlp_grpc":
            from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as Grpc

            endpoint = telemetry.endpoint or "http://127.0.0.1:4317"
            return Grpc(endpoint=endpoint, insecure=endpoint.startswith("http://"), timeout=EXPORT_TIMEOUT_SECONDS)
        case _:
            return None
