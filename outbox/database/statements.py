"""
Parts of hand-written SQL statements.

The rows of a model are passed as one JSON parameter, so one statement can write several tables and any number
of rows. The columns come from the models, so a column that is added to a model is written as well.
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
    How the rows of a model are inserted.

    The database fills its own ids and all columns with a `db_default`, except those in `given`.
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
        """Return an INSERT of the rows in the statement's `parameter`, in their order."""
        table = self.model._meta.db_table
        names = ", ".join(f'"{field.column}"' for field in self.fields)
        return (
            f"INSERT INTO {table} ({names}) "  # noqa: S608 - names of our own tables and columns
            f"SELECT {names} FROM jsonb_populate_recordset(NULL::{table}, %({parameter})s::jsonb)"
        )

    def as_json(self, instances: Iterable[M]) -> str:
        """Return the rows of unsaved instances, as a parameter."""
        columns = [(field.column, field.attname) for field in self.fields]
        rows = [{column: getattr(instance, name) for column, name in columns} for instance in instances]
        return json.dumps(rows, default=str)


def columns(model: type[models.Model], *, of: str = "") -> str:
    """
    Return the names of the model's columns, prefixed with the table `of` if it is given.

    Use it in statements that return whole rows, instead of `*`: PostgreSQL refuses to run a prepared statement
    whose result columns have changed, so a migration that adds a column would break running workers.
    """
    prefix = f"{of}." if of else ""
    return ", ".join(f"{prefix}{field.column}" for field in model._meta.concrete_fields)


def insert_from(model: type[models.Model], source: str, **values: str) -> str:
    """
    Return an INSERT of one row of the model for each row of `source`.

    `values` are SQL expressions by column. Other columns get the model's default, which the database does not
    know.

    Raises:
        ValueError: if a column does not exist, or has neither a value nor a plain default.
    """
    written: dict[str, str] = {}
    if unknown := values.keys() - {field.column for field in model._meta.concrete_fields}:
        raise ValueError(f"{model.__name__} has no columns {sorted(unknown)}")
    for field in model._meta.concrete_fields:
        if (column := str(field.column)) in values:
            written[column] = values[column]
        elif not _is_left_out(field):
            written[column] = _default(field)
    return (
        f"INSERT INTO {model._meta.db_table} ({', '.join(written)}) "  # noqa: S608 - names of our own
        f"SELECT {', '.join(written.values())} FROM {source}"
    )


def _is_left_out(field: Any) -> bool:
    """Whether the database fills the column in."""
    if isinstance(field, models.AutoField) or field.has_db_default():
        return True
    return bool(field.null) and not field.has_default()


def _default(field: Any) -> str:
    value = field.get_default()
    if type(value) is int:
        return str(value)
    if isinstance(value, str) and (field.has_default() or field.blank) and "'" not in value:
        return f"'{value}'"
    raise ValueError(f"{field} needs a value: it has no plain default")
