#!/usr/bin/env bash
# transformers 5.24.0: an attention function of one's own cannot have "flash" in its name.
#
# AttentionInterface.register(NAME, function) makes a model compute its attention by the function. For any name that contains "flash" the
# model then looks for a package or a kernel of that name, although the function is registered, and raises a ValueError. The
# same function under another name works. Nothing in the documentation of AttentionInterface says so.
# Seen on 2026-11-27, Python 3.11, torch 2.13.0 on CPU, a RoBERTa of one layer:
#     my_attention: ok
#     my_flash_attention: ValueError
#     myflash: ValueError
# Exit code 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }
cat > "$folder/names.py" <<'PYTHON'
import torch
from transformers import AttentionInterface, RobertaConfig, RobertaModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

SIZES = dict(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)


def attention(module, query, key, value, attention_mask, **options):
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)


for name in ("my_attention", "my_flash_attention", "myflash"):
    AttentionInterface.register(name, attention)
    try:
        RobertaModel(RobertaConfig(**SIZES, attn_implementation=name))(torch.ones(1, 4, dtype=torch.long))
        print(f"{name}: ok")
    except ValueError:
        print(f"{name}: ValueError")
PYTHON
HF_HUB_OFFLINE=1 timeout 120 "$folder/venv/bin/python" "$folder/names.py" 2> "$folder/err.log" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED' && echo "as stated"
my_attention: ok
my_flash_attention: ValueError
myflash: ValueError
EXPECTED
