#!/usr/bin/env bash
# transformers 5.24.0: a RoBERTa tokenizer read from vocab.json and merges.txt alone leaves a lone space before <mask>.
#
# RoBERTa's <mask> takes the space before it (lstrip): in pretraining a masked word has no space of its own. A folder with the two
# files and no tokenizer.json or tokenizer_config.json, as roberta models were published for years, gave that in transformers 4. In
# transformers 5 it gives the <mask> without lstrip, so "Hello <mask>" has one more token, a space, which the model never saw
# before a <mask>. With a tokenizer.json or a tokenizer_config.json that states lstrip both versions agree. Neither says a word.
# Seen on 2026-11-27, Python 3.11, tokenizers 0.22.1 and 0.23.3:
#     4.57.1 vocab.json merges.txt: Hello <mask>
#     4.57.1 and tokenizer_config.json: Hello <mask>
#     5.24.0 vocab.json merges.txt: Hello Ġ <mask>
#     5.24.0 and tokenizer_config.json: Hello <mask>
# Exit code 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/mask.py" <<'PYTHON'
import json
import pathlib
import sys

import transformers

folder = pathlib.Path(sys.argv[1])
pieces = ["<s>", "<pad>", "</s>", "<unk>", *"Helo", "Ġ", "He", "ll", "Hell", "Hello", "<mask>"]
merges = ["#version: 0.2", "H e", "l l", "He ll", "Hell o"]
mask = {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "normalized": False, "rstrip": False, "single_word": False}
folder.mkdir()
(folder / "config.json").write_text(json.dumps({"model_type": "roberta"}))
(folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
(folder / "merges.txt").write_text("\n".join(merges) + "\n")
for name in ("vocab.json merges.txt", "and tokenizer_config.json"):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("Hello <mask>", add_special_tokens=False)["input_ids"])
    print(f"{transformers.__version__} {name}:", *tokens)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "RobertaTokenizer", "mask_token": mask}))
PYTHON
for versions in "transformers==4.57.1 tokenizers==0.22.1" "transformers==5.24.0 tokenizers==0.23.3"; do
    venv="$folder/venv_${versions%% *}"
    python3 -m venv "$venv"
    # shellcheck disable=SC2086
    "$venv/bin/pip" install --quiet $versions 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }
    HF_HUB_OFFLINE=1 timeout 120 "$venv/bin/python" "$folder/mask.py" "$folder/model_${versions%% *}" 2> "$folder/err.log" || { cat "$folder/err.log"; exit 1; }
done | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED' && echo "as stated"
4.57.1 vocab.json merges.txt: Hello <mask>
4.57.1 and tokenizer_config.json: Hello <mask>
5.24.0 vocab.json merges.txt: Hello Ġ <mask>
5.24.0 and tokenizer_config.json: Hello <mask>
EXPECTED
