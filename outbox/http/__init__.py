"""
What adapters of HTTP providers have in common.

Answers are read without trusting them, and `Retry-After` is read in one place. Which provider is called, and
how, is the business of the app that owns the adapter.
"""
