"""Search in a collection of sound: an index of vectors, queries, and people's labels."""
