"""Other tools' files: read into a recipe with a word about every key, and written from one."""
