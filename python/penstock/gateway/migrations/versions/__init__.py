"""The steps. A file's name begins with its number."""
