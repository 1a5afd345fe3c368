"""Protocols: ways to score a network, each named, versioned and in a file of its own."""
