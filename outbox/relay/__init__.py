"""
From rows to the broker: claim what is due, start its workflows, note what was sent.

A message that cannot start is postponed, parked or buried here. Deliveries that were sent and have not ended
are rows, too, and a probe tells a waiting copy from a lost one.
"""
