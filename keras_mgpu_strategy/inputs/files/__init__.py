"""Files and folders as inputs of every predict method.

Guarantee: rows are read as they are needed, so that files may be larger than memory.
"""
