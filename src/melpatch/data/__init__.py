"""Data: corpora, shards, splits and the loader that makes batches."""
