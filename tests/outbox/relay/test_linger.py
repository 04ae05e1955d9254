"""How long the relay gathers messages after a batch."""

from __future__ import annotations

from outbox.relay.listener import LINGER, LONGEST_LINGER, SEVERAL, next_linger


def test_the_relay_lingers_for_longer_while_each_batch_has_several_messages():
    lingers = [LINGER]
    for _ in range(6):
        lingers.append(next_linger(lingers[-1], SEVERAL))

    assert lingers[:3] == [LINGER, 2 * LINGER, 4 * LINGER]
    assert lingers[-1] == LONGEST_LINGER


def test_a_batch_of_few_messages_ends_the_longer_linger():
    assert next_linger(LONGEST_LINGER, SEVERAL - 1) == LINGER
