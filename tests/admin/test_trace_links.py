"""Orders, messages and dead letters link to their traces, if the address is set and a trace is known."""

from __future__ import annotations

import pytest
from django.urls import reverse

from outbox.models import OutboxMessage
from tests.orderflow.test_files_env import NEEDED, read

TEMPLATE = "https://jaeger.example/trace/{trace_id}?a=1&b=2"
FIRST, AGAIN = "0af7651916cd43dd8448eb211c80319c", "4bf92f3577b34da6a3ce929d0e0e4736"


def traced(flags: str = "01", trace_id: str = FIRST) -> dict[str, str]:
    return {"traceparent": f"00-{trace_id}-b7ad6b7169203331-{flags}"}


@pytest.fixture
def pages(signed_in, order, dead_letter):
    client = signed_in("on-call")
    urls = [
        reverse("admin:orders_order_change", args=[order.pk]),
        reverse("admin:outbox_outboxmessage_change", args=[order.message_id]),
        reverse("admin:outbox_deadletter_change", args=[dead_letter.pk]),
    ]
    return lambda: [client.get(url).text for url in urls]


def test_the_pages_of_a_message_link_to_its_trace(pages, settings):
    settings.OUTBOX_TRACE_URL_TEMPLATE = TEMPLATE
    OutboxMessage.objects.update(trace=traced())

    for page in pages():
        assert (
            f'<a href="https://jaeger.example/trace/{FIRST}?a=1&amp;b=2" rel="noreferrer">{FIRST}</a>' in page
        )


def test_a_replay_has_a_link_of_its_own(pages, settings):
    settings.OUTBOX_TRACE_URL_TEMPLATE = TEMPLATE
    replays = {"<b>charge</b>": traced(trace_id=AGAIN), "": traced(trace_id=AGAIN)}
    OutboxMessage.objects.update(trace=traced() | {"replays": replays})

    for page in pages():
        assert page.count(f"https://jaeger.example/trace/{AGAIN}") == 2
        assert "replay of &lt;b&gt;charge&lt;/b&gt;" in page
        assert "<b>charge</b>" not in page.split("Trace")[1]


@pytest.mark.parametrize(
    "trace",
    [
        {},
        traced(flags="00"),
        {"traceparent": "00-<script>-x-01"},
        {"traceparent": 7},
        traced(trace_id="0" * 32),
    ],
    ids=["none", "not sampled", "malformed", "a number", "invalid"],
)
def test_without_a_recorded_trace_there_is_no_link(pages, settings, trace):
    settings.OUTBOX_TRACE_URL_TEMPLATE = TEMPLATE
    OutboxMessage.objects.update(trace=trace)

    assert not any("jaeger.example" in page for page in pages())


def test_without_an_address_there_is_no_link(pages):
    OutboxMessage.objects.update(trace=traced())

    assert not any("field-trace_page" in page for page in pages())


@pytest.mark.parametrize(
    "template", ["javascript:alert({trace_id})", "https://jaeger.example/", "https://{host}/{trace_id}"]
)
def test_an_address_that_leads_nowhere_is_refused_at_start(tmp_path, template):
    done = read(tmp_path, **NEEDED, TRACE_URL_TEMPLATE=template)

    assert done.returncode != 0
    assert "{trace_id} in it" in done.stderr
