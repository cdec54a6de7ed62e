"""OpenTelemetry: the names of spans and attributes, and the set-up.

One trace per connection.  A trace is not evidence: exporters run on their own thread, drop when they must, and change
nothing in a session.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from opentelemetry import propagate, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import Span

from gateway import __version__
from gateway.settings import Settings, TelemetrySettings

EXPORT_TIMEOUT_SECONDS = 3


class Step(StrEnum):
    """Steps of the story: the names of its spans and of its audit events."""

    CONNECTION = "connection"
    REFUSED = "refused"
    ACCEPT = "accept"
    AUTHN = "authn"
    VERIFY = "verify"
    CAPTURE = "capture"
    CONFIG = "config"
    REASON = "reason"
    APPROVAL = "approval"
    BREAKGLASS = "breakglass"
    NOTIFY = "notify"
    LEASE = "lease"
    WORKSPACE = "workspace"
    AGENT = "agent"
    REQUEST = "request"
    DECLINED = "declined"
    SFTP = "sftp"
    EGRESS = "egress"
    LISTENER = "listener"
    ARRIVAL = "arrival"
    RELAY = "relay"
    LIVE = "live"
    GONE = "gone"
    ADMISSION = "admission"
    ADMIN = "admin"
    GRANT = "grant"
    DATA = "data"
    SEGMENT = "segment"


@contextmanager
def tracing(settings: Settings) -> Iterator[trace.Tracer]:
    """The tracer for this process; on exit what is pending is sent, for a bounded time."""
    provider = TracerProvider(resource=resource(settings), shutdown_on_exit=False)
    with _exporter(settings) as exporter:
        if exporter is not None:
            provider.add_span_processor(
                BatchSpanProcessor(
                    exporter, schedule_delay_millis=500, export_timeout_millis=EXPORT_TIMEOUT_SECONDS * 1000
                )
            )
        try:
            yield provider.get_tracer("doorward", __version__)
        finally:
            provider.shutdown()  # sends what is pending


def resource(settings: Settings) -> Resource:
    """What this process is called, on spans and on metrics."""
    return Resource.create(
        {
            "service.name": settings.telemetry.service_name,
            "service.version": __version__,
            "service.instance.id": settings.instance,
        }
    )


@contextmanager
def _exporter(settings: Settings) -> Iterator[SpanExporter | None]:
    telemetry = settings.telemetry
    if telemetry.exporter == "file":
        path = telemetry.file or settings.state / "traces.jsonl"
        with path.open("a") as out:
            path.chmod(0o600)
            yield ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\n")
    else:
        yield _otlp_exporter(telemetry)


def _otlp_exporter(telemetry: TelemetrySettings) -> SpanExporter | None:
    # Imported where used: the gRPC library costs 100 ms of start-up that most do not need.
    match telemetry.exporter:
        case "otlp_http":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

            base = (telemetry.endpoint or "http://127.0.0.1:4318").rstrip("/")
            return Http(endpoint=f"{base}/v1/traces", timeout=EXPORT_TIMEOUT_SECONDS)
        case "otlp_grpc":
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

            endpoint = telemetry.endpoint or "http://127.0.0.1:4317"
            return Grpc(endpoint=endpoint, insecure=endpoint.startswith("http://"), timeout=EXPORT_TIMEOUT_SECONDS)
        case _:
            return None


def trace_id(span: Span) -> str:
    return trace.format_trace_id(span.get_span_context().trace_id)


def traceparent(span: Span) -> str:
    """The W3C header that continues `span` elsewhere."""
    carrier: dict[str, str] = {}
    propagate.get_global_textmap().inject(carrier, trace.set_span_in_context(span))
    return carrier.get("traceparent", "")
