"""A page in the browser to search, listen, label and teach."""
