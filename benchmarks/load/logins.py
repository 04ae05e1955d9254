"""
Anonymous logins: `python -m benchmarks.load.logins HOST:PORT CLIENTS`, until standard input ends.

Every attempt comes from another loopback address and names another user, so that no rate limit stops it before
the password is hashed. Prints one line of JSON with the number of attempts by HTTP status.
"""

from __future__ import annotations

import collections
import concurrent.futures
import http.client
import itertools
import json
import re
import sys
import threading
import urllib.parse

LOGIN = "/admin/login/"
MOST_ATTEMPTS = 20_000
"""Of each client."""

_COOKIE = re.compile(r"csrftoken=(\w+)")


def main(words: list[str]) -> int:
    """Try to log in until standard input ends, and report."""
    address, clients, ended = words[0], int(words[1]), threading.Event()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        shares = [pool.submit(_client, address, number, ended) for number in range(clients)]
        sys.stdin.read()
        ended.set()
        statuses = sum((share.result() for share in shares), collections.Counter[str]())
    print(json.dumps(statuses))
    return 0


def _client(address: str, number: int, ended: threading.Event) -> collections.Counter[str]:
    statuses = collections.Counter[str]()
    for attempt in itertools.count():
        if ended.is_set() or attempt == MOST_ATTEMPTS:
            return statuses
        source = f"127.{1 + number}.{1 + attempt // 250}.{1 + attempt % 250}"
        try:
            statuses[str(_attempt(address, source))] += 1
        except OSError as error:
            statuses[type(error).__name__] += 1
    return statuses


def _attempt(address: str, source: str) -> int:
    connection = http.client.HTTPConnection(address, timeout=30, source_address=(source, 0))
    try:
        connection.request("GET", LOGIN)
        page = connection.getresponse()
        page.read()
        found = _COOKIE.search(page.headers.get("Set-Cookie", ""))
        if found is None:
            return page.status
        form = {"username": source, "password": "guess", "csrfmiddlewaretoken": found[1]}
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Cookie": f"csrftoken={found[1]}",
            "Referer": f"http://{address}{LOGIN}",
        }
        connection.request("POST", LOGIN, urllib.parse.urlencode(form), headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
