"""
Dead letters of orders: which order waits for one, and the effect of discarding it.

`discards` reports the unfinished work behind a dead letter to the outbox. Dead letters that a cancellation made
needless are closed here.
"""
