"""Panels: what is hosted, joined or served, live in the notebook and calm in the saved file.

A panel is one Python class here and a few small scripts beside it, joined when it is loaded.
"""
