"""SQuAD 1.1 and 2.0 (section 5.2): questions whose answer is a span of a paragraph, or, in 2.0, that have none."""
