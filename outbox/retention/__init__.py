"""
Deletes old rows.

Open dead letters are never deleted, nor are the records that make their replay safe. If the message table is
partitioned, whole partitions are dropped instead of rows.
"""
