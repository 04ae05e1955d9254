"""Any file is either refused with line and reason, or every line of it is accounted for."""

from __future__ import annotations

import gzip
import json
import random
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orders import services
from orders.imports import importer, invoice_files, invoices, spellings
from orders.models import IdempotencyRecord, Order, Product
from tests.commands.conftest import run  # noqa: F401 - a fixture
from tests.factories import ProductFactory
from tests.hostile import files
from tests.hostile.files import HEADER, line
from tests.slow import but_first

ENTRIES = ([], ["--dry-run"])


@pytest.fixture
def written(tmp_path):
    """Write bytes or text to a file and return its path."""

    def written(content, name="orders.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return written


@pytest.fixture
def imported(run, written):  # noqa: F811
    """Import a content; return the report and the result of the command."""

    def imported(content, *options):
        answer = run("import_orders", str(written(content)), "--format", "json", *options)
        report = json.loads(answer.out or "null")
        return report, answer

    return imported


def refused(error):
    assert str(error).startswith("line ")


def totals():
    return dict(Order.objects.values_list("client_reference", "total_minor"))


@pytest.mark.parametrize("entry", ENTRIES, ids=["import", "dry-run"])
@pytest.mark.parametrize("name", but_first(files.DAMAGED, first=8))
def test_a_damaged_file_is_refused_with_line_and_reason(imported, name, entry):
    content, message = files.DAMAGED[name]
    report, answer = imported(content, *entry)

    assert report is None
    assert answer.code == 1
    assert answer.error.startswith("Cannot import: line ")
    assert message in answer.error
    assert not Order.objects.exists()
    assert not Product.objects.exists()


@pytest.mark.parametrize("name", but_first(files.WRONG, first=8))
def test_a_wrong_line_rejects_its_whole_invoice_and_no_other(imported, name):
    wrong = files.WRONG[name]
    report, answer = imported(HEADER + line("1") + line("2", sku="22041") + wrong + line("3"))

    assert answer.error == ""
    assert totals() == {"1": 339, "3": 339}
    assert report["lines_read"] == 3 + wrong.count("\n")
    assert sum(report["rejected"].values()) == 1 + wrong.count("\n")
    assert any("line 4" in mistake or "invoice 2" in mistake for mistake in report["mistakes"])


@pytest.mark.parametrize("entry", ENTRIES, ids=["import", "dry-run"])
@pytest.mark.parametrize("name", but_first(files.WRONG, first=4))
def test_a_file_without_a_valid_line_fails(imported, name, entry):
    report, answer = imported(HEADER + line("2", sku="22041") + files.WRONG[name], *entry)

    assert (answer.code, report["orders_placed"]) == (1, 0)
    assert answer.error.startswith("Every line was rejected")


@pytest.mark.parametrize("spelling", but_first(files.SPELLINGS, first=6))
def test_an_invoice_is_placed_once_however_its_number_is_spelled(imported, spelling):
    imported(HEADER + line("536365"))
    report, answer = imported(HEADER + line(spelling))

    assert (report["orders_repeated"], answer.error) == (1, "")
    assert totals() == {"536365": 339}


def test_a_comma_within_an_id_stands_before_thousands(imported):
    imported(HEADER + line('"1,536,000"') + line('"536,365"'))

    assert totals() == {"1536000": 339, "536365": 339}


@pytest.mark.parametrize("sku", ["POST", "D", "m", "gift_0001_20", "BANK CHARGES", "C2"])
def test_a_line_that_is_not_a_product_leaves_the_rest_of_its_invoice(imported, sku):
    report, _ = imported(HEADER + line("1") + line("1", sku=sku))

    assert totals() == {"1": 339}
    assert report["rejected"] == {"no product": 1}


@pytest.mark.parametrize("rate", ["nan", "inf", "-1", "0", "1e-320"])
def test_a_rate_that_cannot_be_kept_is_refused(imported, rate):
    report, answer = imported(HEADER + line("1"), f"--rate={rate}")

    assert (report, answer.code) == (None, 1)
    assert answer.error.startswith("--rate")


def test_spellings_of_one_number_in_one_file_are_one_invoice(imported):
    imported(
        HEADER
        + "".join(line(spelling, sku=f"7105{place}") for place, spelling in enumerate(files.SPELLINGS[:9]))
    )

    assert totals() == {"536365": 9 * 339}


def test_a_leading_zero_elsewhere_in_the_file_makes_a_number_ambiguous(imported):
    report, _ = imported(HEADER + line("0123") + line("123", sku="22041") + line("9"))

    assert totals() == {"9": 339}
    assert "spelled in ways" in report["mistakes"][0]


@pytest.mark.parametrize("spelling", ["536365.0", "'536365", '="536365"'])
def test_invoices_stored_under_another_spelling_are_not_placed_again(imported, spelling):
    imported(HEADER + line("536365"))
    [record] = IdempotencyRecord.objects.all()
    rows = [[spelling, "71053", "LANTERN", 1, 339, "17850", "FR"]]
    record.key = spelling
    record.fingerprint = services.IdempotencyKey.of(
        scope=importer.SCOPE, key=spelling, request=rows
    ).fingerprint
    record.save()
    report, _ = imported(HEADER + line("536365"))

    assert report["orders_repeated"] == Order.objects.count() == 1


@pytest.mark.parametrize(
    "lines",
    [
        [line("1"), line("2"), line("1", sku="22041")],
        [line("1"), "\n", line("1", sku="22041"), line("2")],
        [line("1"), line("2"), line("1", sku="POST"), line("1", sku="22041")],
    ],
)
def test_lines_of_an_invoice_that_lie_apart_are_put_together(imported, lines):
    imported(HEADER + "".join(lines))

    assert totals() == {"1": 2 * 339, "2": 339}


def test_an_invoice_that_is_in_a_file_twice_is_rejected_whole(imported):
    report, _ = imported(HEADER + line("1") + line("2") + line("1") + line("3") + line("2", quantity="9"))

    assert totals() == {"3": 339}
    assert report["rejected"] == {"lines of the invoice lie apart and repeat a product": 4}


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + files.GOOD,
        files.GOOD.replace(b"\n", b"\r\n"),
        files.GOOD.rstrip(b"\n"),
        gzip.compress(files.GOOD),
        gzip.compress(files.GOOD[:50]) + gzip.compress(files.GOOD[50:]),
        b'"' + files.GOOD.replace(b",", b'","').replace(b"\n", b'"\n"').removesuffix(b'"'),
        files.GOOD.replace(b"LANTERN", b'LANTERN 12"'),
        files.GOOD.replace(b"LANTERN", b'"LANTERN 12"", RED"'),
        files.GOOD.replace(b"17850", b'"=""17850"""').replace(b"71053", b"'71053"),
        files.GOOD.replace(b"17850", b"17850.0")
        .replace(b"71053", b"71053.0")
        .replace(b",1,2010", b",1.0,2010"),
    ],
    ids=["mark", "crlf", "no-end", "gzip", "two-gzips", "quoted", "inches", "doubled", "formulas", "floats"],
)
def test_the_dialects_of_spreadsheets_are_read(imported, content):
    report, answer = imported(content)

    assert (answer.error, report["lines_read"]) == ("", 3)
    assert totals() == {"1": 339, "2": 339, "3": 339}


def test_a_product_that_cannot_be_sold_so_rejects_its_invoice_and_no_other_of_the_chunk(imported):
    ProductFactory(sku="22041", currency="EUR")
    full = 2**63 - 2
    ProductFactory(sku="22042", stock=full)
    report, answer = imported(
        HEADER + line("1") + line("2", sku="22041") + line("3", sku="22042", quantity="9")
    )

    assert (answer.error, totals()) == ("", {"1": 339})
    assert report["rejected"] == {"product priced in another currency": 1, "sum too large to be stored": 1}
    assert Product.objects.get(sku="22042").received == full


@pytest.mark.slow
def test_an_archive_that_explodes_is_refused_in_bounded_memory(written, monkeypatch):
    monkeypatch.setattr(invoice_files, "HARMLESS", 100_000)
    path = written(gzip.compress((HEADER + "\n" * 2_000_000).encode()))
    tracemalloc.start()
    try:
        with pytest.raises(invoices.UnreadableFile, match="too large"):
            for _ in invoice_files.records(path, invoices.COLUMNS):
                pass
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert most < 512 * 1024


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(written):
    def most_memory(number):
        path = written(HEADER + "".join(line(str(invoice)) for invoice in range(1, number + 1)))
        tracemalloc.start()
        try:
            assert sum(1 for _ in invoices.Invoices(path, guests=False, limit=None)) == number
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    most_memory(1500)
    assert most_memory(4500) < most_memory(1500) + 128 * 1024


FIELD = st.one_of(
    st.sampled_from(
        ["", '"', '""', "71053", "536365", "1", "-1", "3.39", "1e9", "=1", "\x00", "\ufeff", ",", "\r"]
    ),
    st.text(max_size=8),
)
HOSTILE_LINE = st.one_of(
    st.lists(FIELD, max_size=10).map(",".join),
    st.builds(line, invoice=FIELD).map(str.rstrip),
    st.builds(line, name=FIELD, price=FIELD).map(str.rstrip),
    st.builds(line, quantity=FIELD, customer=FIELD, country=FIELD).map(str.rstrip),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(HOSTILE_LINE, max_size=12), st.sampled_from(["\n", "\r\n"]))
def test_every_line_of_any_file_is_accounted_for_or_the_file_refused(written, lines, end):
    content = (HEADER + "".join(text + end for text in lines)).encode("utf-8", "surrogatepass")
    reading = invoices.Invoices(written(content), guests=True, limit=None)
    try:
        taken = [found.rows for found in reading]
    except invoices.UnreadableFile as error:
        refused(error)
        return

    assert reading.lines_read == content.count(b"\n") - 1
    assert sum(map(len, taken)) + reading.rejected.total() == reading.lines_read
    assert len({rows[0].invoice for rows in taken}) == len(taken)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False), st.binary(max_size=6))
def test_any_damage_to_an_archive_is_refused_or_harmless(written, chance: random.Random, junk):
    at = chance.randrange(len(files.PACKED))
    path = written(files.PACKED[:at] + junk + files.PACKED[at + len(junk) :])
    reading = invoices.Invoices(path, guests=True, limit=None)
    try:
        assert len(list(reading)) == 500
    except invoices.UnreadableFile as error:
        refused(error)


@given(st.text(max_size=80))
def test_normalising_a_spelling_twice_changes_nothing(text):
    number = spellings.invoice_number(text)

    assert spellings.invoice_number(number) == number
    assert len(number) <= spellings.LONGEST_INVOICE
