"""Handwritten digits among ten clients, one of which lies."""
