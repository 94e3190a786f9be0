"""Rows that can be read in order: of arrays, frames, streams and data sets."""
