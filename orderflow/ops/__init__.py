"""
Views over all apps at once: an order's history, capacity, the demo.

Commands and pages show what is computed here. Nothing here changes an order, except that the demo places some.
"""
