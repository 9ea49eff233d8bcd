"""Tables of examples: files and data frames, their columns and cells."""
