"""
The benchmark: OrderFlow against what people do today, on the same servers, in the same run, in turns.

`python3 run.py bench` starts it. The baselines live here too; nothing of the project imports this package.
"""
