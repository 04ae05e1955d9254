"""The benchmark's app: one notification per order, and timestamps of steps if they are enabled."""

from django.apps import AppConfig

from benchmarks import environment


class BenchmarksConfig(AppConfig):
    name = "benchmarks"

    def ready(self) -> None:
        from notifications import rendering, workflows
        from orders.contracts import OrderFulfilled

        # The baselines send one e-mail per order, when it is shipped; so does OrderFlow here.
        workflows.SUBSCRIPTIONS[:] = [(OrderFulfilled, workflows.by_email)]
        for event in set(rendering.TEMPLATES) - {OrderFulfilled}:
            del rendering.TEMPLATES[event]
        if environment.NOTES_TIMES:
            from benchmarks import ledger

            ledger.note_times_of_tasks()
