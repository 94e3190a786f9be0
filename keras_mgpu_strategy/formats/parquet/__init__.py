"""Parquet files, and other tables of Arrow."""
