"""Handwritten digits among ten clients: the demo."""
