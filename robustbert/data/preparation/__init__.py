"""From raw text to an indexed corpus: several processes, resumable, with what was not taken counted."""
