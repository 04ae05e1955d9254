# Shortcuts for make; without it: python3 run.py, python3 run.py test.
.PHONY: demo test

demo:
	python3 run.py

test:
	python3 run.py test
