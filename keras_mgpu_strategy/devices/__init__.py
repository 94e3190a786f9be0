"""Devices: their names, their memory, and the scope that models live in."""
