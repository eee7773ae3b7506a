"""RoBERTa to the digit, on tensor-parallel layers."""
