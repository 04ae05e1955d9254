"""
Counts and durations of rows, per minute and in total: what the exporter of metrics and the overview page read.

Each app registers its series in `apps.ready()` (`catalogue`). A periodic task counts new rows into buckets of
one minute and into totals that outlive the rows (`rolling_up`), so nobody has to count a table again.

Read plots with `reading.read("messages.published", since=…, until=…, step=…)`: it returns, for each series, one
`Line` per combination of labels, with a `Point` for every step (also for steps in which nothing happened). A
point has `at`, `count`, `seconds` (the sum), `maximum` and `quantile(0.95)`. Minutes are kept for
`rolling_up.KEPT`, and the newest rows are counted as well, so a plot ends now. Read counters with
`totals.read()`: they are exact, and never fall unless the database was restored.
"""
