"""
The relay claims due messages, starts their workflows and records what was sent.

A message that cannot be started is postponed, parked or buried. Each unfinished delivery is a row as well, and
probes distinguish a waiting copy from a lost one.
"""
