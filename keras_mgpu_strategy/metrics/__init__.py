"""Metrics of Keras on the host: made, described, and made again."""
