"""
Dead letters: unfinished work, stored with its reason until a person replays or discards it.

`burying` creates dead letters and `resolving` closes them. `campaigns` follows a replay until each of its
messages has recovered or failed again. Other apps register what the work behind a dead letter means (`owners`).
"""
