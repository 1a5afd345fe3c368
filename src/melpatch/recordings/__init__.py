"""From recordings, however many and however long, to one output: windows, batches, rows, parts, tables."""
