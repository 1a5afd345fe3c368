"""Published weights of other code bases; one file per format."""
