"""*Orders*: what the business sees. How many are placed, how they end, and how long customers wait."""

from __future__ import annotations

from deploy.grafana.panels import SECONDS, SHARE, Dashboard, Kind, Limits, Panel, Query, Variable

OBJECTIVE = 60
"""Seconds within which 99.9 % of the orders are to be final."""

ALLOWED = 0.001
"""The share of orders that may be late."""

PER_MINUTE = "suffix: /min"


def added(counter: str, window: str, step: str) -> str:
    """
    Return by how much a counter of rows has grown. The maximum over exporters is taken first: one that is
    replaced within the window would otherwise hide what was counted before.
    """
    return f"increase(max({counter})[{window}:{step}])"


def late(window: str, step: str) -> str:
    """Return the share of the orders of a window that were late; nothing if no order was due."""
    due = added("orderflow_orders_due_total", window, step)
    return f"{added('orderflow_orders_late_total', window, step)} / ({due} > 0)"


def duration(quantile: float) -> Query:
    """Return a quantile of the time from placing an order to its end."""
    rates = 'rate(orderflow_order_duration_seconds_bucket{outcome=~"$outcome"}[$__rate_interval])'
    buckets = f"sum by (le) (max by (le, outcome) ({rates}))"
    return Query(f"histogram_quantile({quantile}, {buckets})", f"p{quantile * 100:g}")


def burn(window: str, step: str) -> Query:
    """Return how many times faster than allowed the error budget is spent."""
    return Query(f"({late(window, step)}) / {ALLOWED}", window)


NOW = (
    Panel(
        title="Placed",
        description="Orders that were placed in the time that is shown, counted from their rows.",
        queries=(Query(added("orderflow_orders_placed_total", "$__range", "$__interval")),),
        kind=Kind.STAT,
        decimals=0,
        admin="orders/order/",
        width=4,
        height=4,
    ),
    Panel(
        title="Final within 60 s",
        description=(
            "The share of the orders whose 60 seconds ended in the time that is shown, and that were "
            "fulfilled, rejected or cancelled by then. The objective is 99.9 %."
        ),
        queries=(Query(f"1 - {late('$__range', '$__interval')}"),),
        nothing="no order was due",
        kind=Kind.STAT,
        unit=SHARE,
        decimals=2,
        limits=Limits(warning=0.9995, critical=0.999, falling=True),
        alerts=("OrdersLateFastBurn", "OrdersLateSlowBurn"),
        admin="orders/order/",
        width=4,
        height=4,
    ),
    Panel(
        title="Error budget left, 30 days",
        description=(
            "What is left of the 0.1 % of orders that may be late in 30 days: 100 % if none was late, below 0 "
            "if the objective is missed."
        ),
        queries=(Query(f"1 - ({late('30d', '5m')}) / {ALLOWED}"),),
        nothing="no order was due",
        kind=Kind.STAT,
        unit=SHARE,
        decimals=0,
        limits=Limits(warning=0.5, critical=0, falling=True),
        alerts=("OrdersLateSlowBurn",),
        width=4,
        height=4,
    ),
    Panel(
        title="Stuck",
        description=(
            "Unfinished orders whose next step is later than the sweep would allow: nothing is moving them. It "
            "must be 0."
        ),
        queries=(Query("max(orderflow_orders_stuck)"),),
        kind=Kind.STAT,
        limits=Limits(critical=1),
        alerts=("OrdersStuck",),
        admin="orders/order/?attention=yes",
        width=4,
        height=4,
    ),
    Panel(
        title="Oldest unfinished",
        description=(
            "How long the oldest unfinished order has been waiting. Orders that wait for a person, or for a "
            "provider that is down, count as well."
        ),
        queries=(Query("max(orderflow_oldest_unfinished_order_seconds)"),),
        kind=Kind.STAT,
        unit=SECONDS,
        limits=Limits(warning=OBJECTIVE, critical=3600),
        alerts=("OrdersStuck",),
        admin="orders/order/",
        width=4,
        height=4,
    ),
    Panel(
        title="Verification",
        description=(
            "Whether every invariant held when `verify` last compared orders, payments, stock, messages and "
            "notifications."
        ),
        queries=(Query("max(orderflow_verification_violated)"),),
        kind=Kind.STAT,
        limits=Limits(critical=1),
        words=((0, "holds", "green"),),
        alerts=("VerificationViolated", "VerificationNotRun"),
        admin="outbox/verification/",
        width=4,
        height=4,
    ),
)

FLOW = (
    Panel(
        title="Orders by outcome",
        description="Orders per minute: placed, and ended by outcome. Where the lines part, work is waiting.",
        queries=(
            Query("60 * max(rate(orderflow_orders_placed_total[$__rate_interval]))", "placed"),
            Query(
                '60 * max by (outcome) (rate(orderflow_orders_total{outcome=~"$outcome"}[$__rate_interval]))',
                "{{outcome}}",
            ),
        ),
        unit=PER_MINUTE,
        admin="orders/order/",
    ),
    Panel(
        title="Unfinished by status",
        description=(
            "Orders that are being worked off, by status. A status that grows alone points at its next step."
        ),
        queries=(Query("max by (status) (orderflow_orders_unfinished)", "{{status}}"),),
        stacked=True,
        alerts=("OrdersStuck",),
        admin="orders/order/",
    ),
    Panel(
        title="Rejected and cancelled",
        description=(
            "The share of ended orders that were rejected (a declined card, no stock) or cancelled and "
            "refunded. A jump is a business problem, not a technical one: refusals are no failures."
        ),
        queries=(
            Query(
                "max by (outcome)"
                ' (rate(orderflow_orders_total{outcome=~"rejected|cancelled"}[$__rate_interval]))'
                " / ignoring (outcome) group_left"
                " sum(max by (outcome) (rate(orderflow_orders_total[$__rate_interval])))",
                "{{outcome}}",
            ),
        ),
        unit=SHARE,
        admin="orders/order/?status__exact=rejected",
    ),
)

WAITING = (
    Panel(
        title="Placed → final",
        description="How long orders take from being placed to their end. The line is the objective of 60 s.",
        queries=(duration(0.5), duration(0.95), duration(0.99)),
        unit=SECONDS,
        limits=Limits(critical=OBJECTIVE),
        alerts=("OrdersLateFastBurn", "CriticalTimeHigh"),
        admin="orders/order/",
    ),
    Panel(
        title="Placed → final, distribution",
        description=(
            "The number of orders per bucket of duration. Two bands are two populations: for example those "
            "that wait for a provider and those that do not."
        ),
        queries=(
            Query(
                "sum by (le) (max by (le, outcome)"
                ' (increase(orderflow_order_duration_seconds_bucket{outcome=~"$outcome"}[$__rate_interval])))',
                "{{le}}",
            ),
        ),
        kind=Kind.HEATMAP,
        unit=SECONDS,
        alerts=("CriticalTimeHigh",),
    ),
    Panel(
        title="Error budget: burn rate",
        description=(
            "How many times faster than allowed the error budget is spent. 1 uses it up in exactly 30 days; "
            "14.4 (for an hour) and 6 (for six hours) raise an alert."
        ),
        queries=(burn("5m", "15s"), burn("1h", "1m"), burn("6h", "1m"), burn("3d", "5m")),
        unit="suffix: ×",
        limits=Limits(warning=6, critical=14.4),
        alerts=("OrdersLateFastBurn", "OrdersLateSlowBurn"),
    ),
)

CUSTOMERS = (
    Panel(
        title="Notifications by outcome",
        description="Notifications per minute by channel and outcome, from their rows.",
        queries=(
            Query(
                "60 * max by (channel, outcome) (rate(orderflow_notifications_total[$__rate_interval]))",
                "{{channel}}: {{outcome}}",
            ),
        ),
        unit=PER_MINUTE,
        alerts=("NotificationChannelFailing",),
        admin="notifications/notification/",
    ),
    Panel(
        title="Notifications that failed",
        description="The share of each channel's notifications that no provider accepted in the end.",
        queries=(
            Query(
                "max by (channel)"
                ' (rate(orderflow_notifications_total{outcome="failed"}[$__rate_interval]))'
                " / sum by (channel) (max by (channel, outcome)"
                " (rate(orderflow_notifications_total[$__rate_interval])))",
                "{{channel}}",
            ),
        ),
        unit=SHARE,
        limits=Limits(warning=0.01, critical=0.1),
        alerts=("NotificationChannelFailing",),
        admin="notifications/notification/?status__exact=failed",
    ),
    Panel(
        title="Critical time",
        description=(
            "From the commit that published an event to the end of its work: 95 of 100 are faster. It contains "
            "the relay, the queue and every step."
        ),
        queries=(
            Query(
                "histogram_quantile(0.95, sum by (le, event)"
                " (rate(orderflow_message_critical_seconds_bucket[$__rate_interval])))",
                "{{event}}",
            ),
        ),
        unit=SECONDS,
        limits=Limits(critical=OBJECTIVE),
        alerts=("CriticalTimeHigh",),
        admin="outbox/outboxmessage/",
    ),
)

DASHBOARD = Dashboard(
    uid="orderflow-orders",
    title="orders",
    description=(
        "The business: orders placed and ended, how long customers wait, and the objective of 60 seconds."
    ),
    rows=(
        ("Now", NOW),
        ("Orders", FLOW),
        ("Waiting", WAITING),
        ("Customers", CUSTOMERS),
    ),
    variables=(Variable(label="outcome", metric="orderflow_orders_total", title="Outcome"),),
)
