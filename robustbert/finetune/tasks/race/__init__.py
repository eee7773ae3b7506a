"""RACE (section 5.3): which of four options answers a question about a passage, from English exams."""
