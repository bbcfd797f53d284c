"""Serve guests: who may, what they may ask, in which order, and what it took."""
