"""Indexed data that other libraries wrote, read where they lie: Megatron-LM's, fairseq's, and saved Hugging Face datasets."""
