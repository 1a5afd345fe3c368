"""Lists of clips and stores of sound that others write, each in one file."""
