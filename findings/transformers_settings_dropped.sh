#!/usr/bin/env bash
# transformers 5.24.0: a RoBERTa tokenizer that 4.57.6 saved with a normalizer gives other ids, without a word.
#
# tokenizer.json holds normalizer, pre-tokenizer and the model's options. Version 4 of RobertaTokenizerFast applies what the file
# says. In version 5 the class (RobertaTokenizer.__init__; GPT2Tokenizer and BertTokenizer alike) takes vocabulary and merges
# out of the file and makes the rest anew, so a Lowercase normalizer or a Digits pre-tokenizer is gone: text that a model was
# pretrained on lower-cased comes cased. No warning; `tokenizers` alone, and PreTrainedTokenizerFast, still follow the file.
# Seen on 2026-11-27, Python 3.11, tokenizers 0.22.2 (with 4.57.6) and 0.23.3 (with 5.24.0), without torch:
#     4.57.6 AutoTokenizer follows tokenizer.json: True
#     4.57.6 PreTrainedTokenizerFast follows tokenizer.json: True
#     5.24.0 AutoTokenizer follows tokenizer.json: False
#     5.24.0 PreTrainedTokenizerFast follows tokenizer.json: True
# Exit code 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 4.57.6 5.24.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet "transformers==$version" 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }
done
cat > "$folder/save.py" <<'PYTHON'
import sys

from tokenizers import ByteLevelBPETokenizer, normalizers, pre_tokenizers
from transformers import RobertaTokenizerFast

specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
trained = ByteLevelBPETokenizer()
trained.train_from_iterator(["hello world in the year 2019"] * 20, vocab_size=300, special_tokens=specials, show_progress=False)
trained.save(f"{sys.argv[1]}.json")
tokenizer = RobertaTokenizerFast(tokenizer_file=f"{sys.argv[1]}.json")
tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
digits = pre_tokenizers.Digits(individual_digits=True)
tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
tokenizer.save_pretrained(sys.argv[1])
PYTHON
cat > "$folder/read.py" <<'PYTHON'
import sys

import transformers
from tokenizers import Tokenizer

text = "Hello World in the year 2019"
expected = Tokenizer.from_file(f"{sys.argv[1]}/tokenizer.json").encode(text, add_special_tokens=False).ids
for name in ("AutoTokenizer", "PreTrainedTokenizerFast"):
    ids = getattr(transformers, name).from_pretrained(sys.argv[1])(text, add_special_tokens=False).input_ids
    print(f"{transformers.__version__} {name} follows tokenizer.json: {ids == expected}")
PYTHON
export HF_HUB_OFFLINE=1
"$folder/4.57.6/bin/python" "$folder/save.py" "$folder/saved" > "$folder/save.log" 2>&1 || { cat "$folder/save.log"; exit 1; }
for version in 4.57.6 5.24.0; do
    timeout 120 "$folder/$version/bin/python" "$folder/read.py" "$folder/saved" 2> "$folder/err.log" || { cat "$folder/err.log"; exit 1; }
done | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED' && echo "as stated"
4.57.6 AutoTokenizer follows tokenizer.json: True
4.57.6 PreTrainedTokenizerFast follows tokenizer.json: True
5.24.0 AutoTokenizer follows tokenizer.json: False
5.24.0 PreTrainedTokenizerFast follows tokenizer.json: True
EXPECTED
