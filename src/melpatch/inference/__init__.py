"""A trained network on audio of any length: windows, batches, outputs, rows and tables."""
