"""What the benchmarks share: other processes to measure against, and how figures are shown.

Not a script: the benchmarks import it from the directory they are in.
"""
