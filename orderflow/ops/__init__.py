"""
What sees all apps at once: an order's whole story, capacity, the demo.

Commands and pages show what is computed here. Nothing here changes an order except the demo, which places some.
"""
