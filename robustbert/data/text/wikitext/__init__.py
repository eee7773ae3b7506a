"""Wikitext to running text: templates are replaced by the words they stand for, the rest of the markup by its text."""
