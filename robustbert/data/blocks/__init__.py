"""Which tokens are a sample: the four formats of RoBERTa, section 4.2, packed once and stored beside their corpus."""
