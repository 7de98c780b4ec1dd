"""HTTP in front of the cells: text comes in, hits go out; it can read nothing that the caller cannot."""
