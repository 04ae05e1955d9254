"""
What belongs to one checkout: its folders, its lock and state, its ports, passwords and environment.

`.orderflow` holds all of it, except for servers' data that another account must reach. Nothing is started here.
"""
