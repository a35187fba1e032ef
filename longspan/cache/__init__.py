"""The cache: a pool of pages, the sequences that own them, and the one place where bytes are counted."""
