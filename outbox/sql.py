"""Pieces of the statements that are written by hand."""

from __future__ import annotations

from django.db import models


def columns(model: type[models.Model], *, of: str = "") -> str:
    """
    The model's columns by name, those of the table `of` where a statement has several.

    For statements that return whole rows. `*` would say the same, but sessions prepare statements, and
    PostgreSQL refuses to run a prepared one whose columns have changed: every migration that adds a
    column would stop the workers that are running.
    """
    prefix = f"{of}." if of else ""
    return ", ".join(f"{prefix}{field.column}" for field in model._meta.concrete_fields)
