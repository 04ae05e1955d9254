"""
What could not be finished: kept with its reason, replayed or discarded by people.

`burying` is the entrance and `resolving` the way out; a replay is followed as a campaign until each of its
messages has recovered or failed again. The apps above register what the work behind a dead letter means
(`owners`).
"""
