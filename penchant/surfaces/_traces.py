"""Traces for OpenTelemetry: one span a request, named by its route, joined to the caller's trace.

``pip install 'penchant[otel]'``, and the standard variables say where to: ``OTEL_EXPORTER_OTLP_ENDPOINT``,
``OTEL_SERVICE_NAME`` and so on. Without an endpoint nothing is loaded.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from starlette.types import Scope

from penchant.core.errors import MissingExtra

if TYPE_CHECKING:
    from penchant.surfaces._front import Visit

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class Traces:
    """Makes spans.

    Args:
        provider: An OpenTelemetry tracer provider.
    """

    def __init__(self, provider: Any) -> None:
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind

        self._provider = provider
        self._tracer = provider.get_tracer("penchant")
        self._extract, self._kind = extract, SpanKind.SERVER

    @contextlib.contextmanager
    def request(self, scope: Scope, visit: Visit) -> Iterator[None]:
        """A span around one request. It holds no header, query, address or body."""
        carrier = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in {b"traceparent", b"tracestate"}
        }
        with self._tracer.start_as_current_span(
            scope["method"], context=self._extract(carrier), kind=self._kind, record_exception=False
        ) as span:
            yield
            route = scope.get("penchant.route", "other")
            span.update_name(f"{scope['method']} {route}")
            span.set_attributes(
                {
                    "http.request.method": scope["method"],
                    "http.route": route,
                    "http.response.status_code": visit.status,
                    "penchant.request_id": visit.id,
                }
            )
            if visit.status >= 500:
                from opentelemetry.trace import StatusCode

                span.set_status(StatusCode.ERROR)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def traces_from_environment() -> Traces | None:
    """Traces to the endpoint that the environment names; None where it names none.

    Raises:
        MissingExtra: It names one, and the libraries are not installed.
    """
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise MissingExtra("otel", "sending traces") from None
    name = os.environ.get("OTEL_SERVICE_NAME", "penchant")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Traces(provider)
