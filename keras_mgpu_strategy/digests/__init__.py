"""Digests of values and code, and whether code is the user's or a package's."""
