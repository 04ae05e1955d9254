"""A mail server's URL: a scheme for TLS enables it, and an invalid URL prevents a start."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from environs import EnvError

from orderflow.configuration import email_url
from orderflow.sandbox import access


@pytest.mark.parametrize(
    ("url", "starttls", "implicit", "port"),
    [
        ("smtp://mail.example", False, False, 25),
        ("smtp://mail.example:2525", False, False, 2525),
        ("smtp://mail.example:587?tls=True", True, False, 587),
        ("smtp://mail.example:465?ssl=True", False, True, 465),
        ("smtp+tls://u:p@mail.example", True, False, 587),
        ("submission://u:p@mail.example", True, False, 587),
        ("smtp+ssl://u:p@mail.example", False, True, 465),
        ("smtps://u:p@mail.example", False, True, 465),
        ("SMTPS://u:p@mail.example:8465", False, True, 8465),
        ("smtps://u:p@mail.example?ssl=True", False, True, 465),
    ],
)
def test_a_scheme_gives_the_tls_that_it_asks_for(url, starttls, implicit, port):
    found = email_url.parse(url)

    assert (found["EMAIL_USE_TLS"], found["EMAIL_USE_SSL"]) == (starttls, implicit)
    assert (found["EMAIL_HOST"], found["EMAIL_PORT"]) == ("mail.example", port)
    assert found["EMAIL_BACKEND"] == "django.core.mail.backends.smtp.EmailBackend"


@pytest.mark.parametrize("password", ["plain", "a:b@c/d?e#f%20+&=", "pässwörd", " ", "of-0123"])
def test_a_user_and_a_password_are_read_as_they_were_written(password):
    url = f"smtp://{quote('shop@mail.example', safe='')}:{quote(password, safe='')}@127.0.0.1:2525"

    found = email_url.parse(url)

    assert (found["EMAIL_HOST_USER"], found["EMAIL_HOST_PASSWORD"]) == ("shop@mail.example", password)
    assert (found["EMAIL_HOST"], found["EMAIL_PORT"]) == ("127.0.0.1", 2525)


def test_an_account_of_the_sandbox_is_read_back_whatever_its_password_is():
    password = "a:b@c/d?e#f%20+&="

    found = email_url.parse(access.email_url(password, "127.0.0.1:2525"))

    assert (found["EMAIL_HOST_USER"], found["EMAIL_HOST_PASSWORD"]) == (access.USER, password)


@pytest.mark.parametrize(
    "url",
    ["", "mail.example", "mailgun://secret", "console://", "smtp+starttls://u:secret@h", "smtp:/h", "smtp://h:secret",
     "smtp://h:99999", "smtps://u:secret@h?tls=True", "smtp+tls://u:secret@h?ssl=True", "smtp://[::1"],
)  # fmt: skip
def test_an_invalid_url_is_refused_and_not_repeated(url):
    with pytest.raises(EnvError) as refused:
        email_url.parse(url)
    assert "secret" not in str(refused.value)
