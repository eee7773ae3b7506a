"""One module a kind of corpus: the files that people have of it, and the text in them (RoBERTa, section 3.2).

`records` of each finds documents, `extract` makes text of one; records.py says which process runs which.
"""
