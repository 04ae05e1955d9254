"""Counts the messages in Redis that workers have taken and not acknowledged, by queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from outbox.broker.redis_kinds import ResponseError, is_refusal

COUNT = """
local found, order = {}, {}
for _, entry in ipairs(redis.call('HVALS', KEYS[1])) do
    local queue = string.match(entry, '"([^"]*)"%s*%]%s*$') or ''
    if not found[queue] then
        found[queue] = 0
        order[#order + 1] = queue
    end
    found[queue] = found[queue] + 1
end
local answer = {}
for _, queue in ipairs(order) do
    answer[#answer + 1] = queue
    answer[#answer + 1] = found[queue]
end
return answer
"""
"""Key: the hash of one pool. Each of its values ends with the routing key, which is the name of the queue.
Returns queues and numbers in turns, so that messages, which may be large, stay on the server."""

MOST_READ = 10_000
"""Unacknowledged messages of a pool that are read. More are attributed to the queue with the pool's name."""


def count(client: Any, *, pools: Sequence[str], prefix: str = "") -> dict[str, int] | None:
    """
    Return the unacknowledged messages of each queue that has some; None if the server does not run scripts.

    Every pool of workers has a hash of its own; see `celeryconfig`. A key of the wrong type counts as empty.
    """
    found: dict[str, int] = {}
    for pool in dict.fromkeys(pools):
        key = f"{prefix}unacked-{pool}"
        try:
            held = int(client.execute_command("HLEN", f"unacked-{pool}"))
            answer = client.eval(COUNT, 1, key) if 0 < held <= MOST_READ else [pool, held] if held else []
        except ResponseError as error:
            if is_refusal(error):
                continue
            if "NOPERM" in str(error) or "permissions" in str(error):
                return None
            raise
        for queue, number in zip(answer[::2], answer[1::2], strict=True):
            name = queue.decode() if isinstance(queue, bytes) else str(queue)
            found[name] = found.get(name, 0) + int(number)
    return found
