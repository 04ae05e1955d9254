"""Stripe's search language, as far as payment intents need it: `metadata['order']:'42' AND amount>100`."""

from __future__ import annotations

import re

from orderflow.sandbox import ledger as ledgers
from orderflow.sandbox.ledger import Condition

from .errors import StripeError

CLAUSE = re.compile(
    r"""\s*(?P<not>-)?
    (?:metadata\[(?P<q>['"])(?P<key>.*?)(?P=q)\] | (?P<field>amount|created|currency|customer|status))
    \s*(?P<operator>:|~|>=|<=|>|<)\s*
    (?:(?P<quote>['"])(?P<text>.*?)(?<!\\)(?P=quote) | (?P<number>\d{1,18}) | (?P<null>null))
    \s*""",
    re.VERBOSE | re.IGNORECASE,
)
JOINT = re.compile(r"AND|OR", re.IGNORECASE)
NUMBERS = ("amount", "created")


def parsed(query: str) -> Condition:
    """
    Turn a query into a condition on the ledger.

    Raises:
        StripeError: if it is not a valid query.
    """
    clauses: list[Condition] = []
    joints: set[str] = set()
    position = 0
    while True:
        clause = CLAUSE.match(query, position)
        if clause is None:
            raise _not_understood(query)
        clauses.append(_condition(clause))
        position = clause.end()
        if position == len(query):
            break
        joint = JOINT.match(query, position)
        if joint is None:
            raise _not_understood(query)
        joints.add(joint[0].upper())
        position = joint.end()
    if len(joints) > 1:
        raise StripeError(400, "You can't combine AND and OR in the same query.", param="query")
    joint_word = f" {joints.pop()} " if joints else " "
    return (
        f"({joint_word.join(sql for sql, _ in clauses)})",
        tuple(value for _, values in clauses for value in values),
    )


def _condition(clause: re.Match[str]) -> Condition:
    sql, values = _about_metadata(clause) if clause["key"] is not None else _about_field(clause)
    return (f"NOT ({sql})", values) if clause["not"] else (sql, values)


def _about_metadata(clause: re.Match[str]) -> Condition:
    name = f"metadata:{clause['key']}"
    if clause["null"]:
        return "seq NOT IN (SELECT seq FROM labels WHERE name = ?)", (name,)
    if clause["operator"] == "~":
        return "seq IN (SELECT seq FROM labels WHERE name = ? AND instr(value, ?))", (name, _value(clause))
    if clause["operator"] != ":":
        raise StripeError(400, "Metadata can be compared with : and ~ only.", param="query")
    return ledgers.labelled(name, _value(clause))


def _about_field(clause: re.Match[str]) -> Condition:
    name, operator = clause["field"].lower(), clause["operator"]
    if name in NUMBERS:
        value = _value(clause)
        if operator == "~" or not value.isdigit():
            raise StripeError(400, f"{name} is a number and cannot be compared like this.", param="query")
        return ledgers.field(name, "=" if operator == ":" else operator, int(value))
    if operator != ":":
        raise StripeError(400, f"{name} can be compared with : only.", param="query")
    return ledgers.field(name, "=", _value(clause))


def _value(clause: re.Match[str]) -> str:
    if clause["text"] is None:
        return clause["number"] or ""
    return re.sub(r"\\(.)", r"\1", clause["text"])


def _not_understood(query: str) -> StripeError:
    return StripeError(
        400,
        f"We were unable to parse your search query: {query[:200]}. Use field:value, joined by AND or OR; text"
        " values in quotes.",
        param="query",
    )
