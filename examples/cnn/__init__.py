"""Handwritten digits as images: a small convolutional network, several local epochs."""
