"""What Prometheus is told of identity providers: how long their responses take, what becomes of them, and how long what
is known of them is good for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from cvpnd.ops.histogram import Histogram
from cvpnd.reasons import Refusal

ACCEPTED = "accepted"
_RESULTS = (ACCEPTED, *(str(word) for word in Refusal if word.startswith("saml-")))


@dataclass(frozen=True, slots=True)
class SamlMetrics:
    """One identity provider now."""

    name: str
    """Id or ARN."""
    latency: Histogram
    """Of responses, in seconds, with the time that they waited for a thread."""
    responses: Mapping[str, int]
    """``ACCEPTED`` or a ``Refusal`` -> how many."""
    usable: bool
    """There is metadata, and it has not expired."""
    metadata_failures: int = 0
    metadata_expires_at: float | None = None
    """Seconds since the epoch, as the next; None: it does not say."""
    certificate_expires_at: float | None = None
    """Of the last signing certificate to expire."""


def saml_families(providers: Sequence[SamlMetrics]) -> Iterator[Metric]:
    labels = ["provider"]
    latency = HistogramMetricFamily(
        "cvpnd_saml_seconds", "How long responses waited and were looked at, whatever came of it.", labels=labels
    )
    responses = CounterMetricFamily(
        "cvpnd_saml_responses",
        "Responses of identity providers by what became of them: accepted, or the reason why not.",
        labels=["provider", "result"],
    )
    failures = CounterMetricFamily(
        "cvpnd_saml_metadata_failures", "How often metadata could not be read, or was not good.", labels=labels
    )
    usable = GaugeMetricFamily(
        "cvpnd_saml_metadata_usable", "1 if there is metadata that has not expired; 0: nobody logs in.", labels=labels
    )
    metadata = GaugeMetricFamily(
        "cvpnd_saml_metadata_expiry_timestamp_seconds",
        "When the metadata expires, if it says so; days left: (this - time()) / 86400.",
        labels=labels,
    )
    certificate = GaugeMetricFamily(
        "cvpnd_saml_certificate_expiry_timestamp_seconds",
        "When the last of the signing certificates expires. Its key goes on counting: that of the metadata does.",
        labels=labels,
    )
    for each in providers:
        latency.add_metric([each.name], each.latency.buckets(), each.latency.sum)
        for result in dict.fromkeys((*_RESULTS, *sorted(map(str, each.responses)))):
            responses.add_metric([each.name, result], each.responses.get(result, 0))
        failures.add_metric([each.name], each.metadata_failures)
        usable.add_metric([each.name], int(each.usable))
        if each.metadata_expires_at is not None:
            metadata.add_metric([each.name], each.metadata_expires_at)
        if each.certificate_expires_at is not None:
            certificate.add_metric([each.name], each.certificate_expires_at)
    yield from (latency, responses, failures, usable, metadata, certificate)
