"""
Dead letters as orders see them: which order waits for one, and what discarding it means.

`discards` tells the outbox what work stands behind a dead letter. Letters that a cancellation made needless are
closed here.
"""
