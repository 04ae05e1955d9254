"""
HTTP clients that place orders: `python -m benchmarks.load.clients URL TOKEN REQUESTS CLIENTS`.

Each keeps one connection. Prints one line of JSON with the time of every request.
"""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import sys
import time
import uuid
from urllib.parse import urlsplit

PRODUCTS = 100


def main(words: list[str]) -> int:
    """Send the requests and report."""
    url, token, requests, clients = urlsplit(words[0]), words[1], int(words[2]), int(words[3])
    began = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        shares = [
            pool.submit(_client, url.netloc, url.path, token, requests // clients, 7 * number)
            for number in range(clients)
        ]
        times = [took for share in shares for took in share.result()]
    print(json.dumps({"seconds": time.perf_counter() - began, "times": times}))
    return 0


def _client(address: str, path: str, token: str, requests: int, first: int) -> list[float]:
    link = http.client.HTTPConnection(address, timeout=30)
    times = []
    for number in range(first, first + requests):
        items = [{"sku": f"BENCH-{(7 * number + gap) % PRODUCTS}", "quantity": 1} for gap in (0, 3)]
        order = {
            "items": items,
            "currency": "GBP",
            "payment_method": "pm_card_visa",
            "customer": {"name": "Ada Example", "email": "ada@example.com"},
            "country": "GB",
        }
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Idempotency-Key": uuid.uuid4().hex,
        }
        before = time.perf_counter()
        link.request("POST", path, json.dumps(order), headers)
        answer = link.getresponse()
        body = answer.read()
        times.append(time.perf_counter() - before)
        if answer.status != 201:
            raise SystemExit(f"answered {answer.status}: {body[:500].decode(errors='replace')}")
    return times


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
