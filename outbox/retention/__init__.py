"""
What is deleted, when, and what never is.

Open dead letters stay, and so do the records that make their replay safe. Where the message table is
partitioned, whole partitions are dropped instead of rows.
"""
