"""`searchops` for people: it reads and annotates; it never becomes a second reconciler."""
