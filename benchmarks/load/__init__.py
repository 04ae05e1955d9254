"""
Programs that put load on the systems, each in processes of its own: `python -m benchmarks.load.NAME`.

They print one line of JSON. `benchmarks.scenarios` and `benchmarks.systems` start them and read it.
"""
