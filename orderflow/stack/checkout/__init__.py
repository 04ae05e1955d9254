"""
The state of one checkout: its folders, lock, passwords and environment.

All of it is in `.orderflow`, except server data that another account must be able to read. No process is
started here.
"""
