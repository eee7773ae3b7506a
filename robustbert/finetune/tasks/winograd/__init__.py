"""WNLI as the paper finetunes it (section 5.1): which noun phrase of a sentence is best in the place of a pronoun."""
