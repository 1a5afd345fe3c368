"""Compare pretraining methods: the spec, the processes that carry it out, the table of scores."""
