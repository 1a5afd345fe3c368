"""Corpora by name, one file each."""
