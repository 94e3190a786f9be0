"""Measures prediction on several replicas against other ways to do it."""
