"""
What rows, the broker and Redis say of the whole system, as readings that name no vendor.

`descriptions` has the metrics with their labels and sources, `components` reads them within a bounded time, and
the other modules hold the queries. `orderflow.observability.exporter` turns readings into Prometheus' format.
What a process knows of itself is not here: see `orderflow.observability.metrics`.
"""
