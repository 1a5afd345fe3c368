"""Tokens to loss, one file per method."""
