"""The benchmark as an app: one notification per order, and times of steps where they are wanted."""

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
