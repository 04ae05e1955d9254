"""
Rows of any model as one JSON parameter, so that a statement can write several tables and any number of rows.

Which columns there are, the models say: one that is added to a model is written from then on.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from django.db import models

M = TypeVar("M", bound=models.Model)


@dataclasses.dataclass(frozen=True)
class Table(Generic[M]):
    """
    How rows of a model are inserted.

    Left to the database are its own ids and all columns with a `db_default`, but those in `given`.
    """

    model: type[M]
    given: frozenset[str] = frozenset()

    @functools.cached_property
    def fields(self) -> list[models.Field[Any, Any]]:
        """The fields whose columns are written."""
        return [
            field
            for field in self.model._meta.concrete_fields
            if field.name in self.given or not (isinstance(field, models.AutoField) or field.has_db_default())
        ]

    def insert(self, parameter: str) -> str:
        """An INSERT of the rows that the statement's `parameter` holds, in their order."""
        table = self.model._meta.db_table
        names = ", ".join(f'"{field.column}"' for field in self.fields)
        return (
            f"INSERT INTO {table} ({names}) "  # noqa: S608 - names of our own tables and columns
            f"SELECT {names} FROM jsonb_populate_recordset(NULL::{table}, %({parameter})s::jsonb)"
        )

    def as_json(self, instances: Iterable[M]) -> str:
        """The rows of unsaved instances, as a parameter."""
        columns = [(field.column, field.attname) for field in self.fields]
        rows = [{column: getattr(instance, name) for column, name in columns} for instance in instances]
        return json.dumps(rows, default=str)
