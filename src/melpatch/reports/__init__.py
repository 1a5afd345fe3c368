"""Reports: one HTML file that holds what a run, an evaluation or a comparison was and came to."""
