"""Parquet files, and other Arrow tables."""
