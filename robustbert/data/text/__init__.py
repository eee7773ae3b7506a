"""Raw text: the files that people have of it, as documents and sentences."""
