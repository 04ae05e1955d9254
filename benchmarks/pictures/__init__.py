"""
Pictures of results, as SVG: written by the scenarios themselves, for the documentation.

`svg` writes elements; the other modules draw one picture each. Colours follow the reader's
scheme, light or dark.
"""
