"""Formats of files: a folder for each, with reading and writing side by side."""
