"""What `outbox.statistics` has counted, and how far. Only its roll-up writes these rows."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models


class Counted(models.Model):
    """What was counted of one series for one combination of labels."""

    series = models.CharField(max_length=100, help_text="Its name, e.g. messages.published.")
    labels = ArrayField(models.CharField(max_length=200), help_text="In the order of the series' labels.")
    count = models.BigIntegerField(default=0)
    seconds = models.FloatField(default=0, help_text="The sum of all durations, or of all samples.")
    histogram = ArrayField(
        models.BigIntegerField(),
        default=list,
        help_text="Durations per bound of the series, not cumulative, the last without bound; else empty.",
    )

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.series} {self.labels}: {self.count}"


class StatisticsBucket(Counted):
    """One minute of one series. Old ones are deleted: they are part of the total."""

    minute = models.DateTimeField(help_text="When it begins.")
    maximum = models.FloatField(default=0, help_text="The longest duration, or the largest sample.")

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["series", "minute", "labels"], name="one_bucket_per_minute"),
        ]
        indexes: ClassVar = [models.Index(fields=["minute"], name="buckets_by_age")]


class StatisticsTotal(Counted):
    """All that was ever counted of one series, whether its rows and buckets still exist or not."""

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["series", "labels"], name="one_total_per_labels"),
        ]


class StatisticsCursor(models.Model):
    """How far the rows of one series have been counted."""

    series = models.CharField(primary_key=True, max_length=100)
    counted_until = models.BigIntegerField(
        default=0, help_text="The position of the last row that is in the totals; see the series."
    )
    samples: Any = models.JSONField(
        default=list, help_text="Positions up to which may be counted once older transactions have ended."
    )
    recounted_at = models.DateTimeField(null=True, help_text="NULL until its buckets were first compared.")

    def __str__(self) -> str:
        return f"{self.series} until {self.counted_until}"


class UnsettledRow(models.Model):
    """A row before the cursor that does not count yet, such as one whose work is still to be done."""

    series = models.CharField(max_length=100)
    row = models.BigIntegerField()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["series", "row"], name="unsettled_once"),
        ]

    def __str__(self) -> str:
        return f"{self.series} {self.row}"
