"""Loads folders with transformers, without remote code, and compares their logits.

    python hf_load.py FOLDER OTHER...

The folders hold the same model, for example with experts one by one and fused. Prints one JSON line for each: missing and
unexpected tensors but those of MTP layers, and the largest difference of the logits from the first one's.
"""

import json
import re
import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

tokens = torch.tensor([[0, 70, 71, 5, 200, 33]])
first = None
for folder in sys.argv[1:]:
    config = AutoConfig.from_pretrained(folder)
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    mtp = re.compile(rf"^model\.layers\.{config.num_hidden_layers}\.")
    unexpected = [name for name in info["unexpected_keys"] if not mtp.match(name)]
    with torch.no_grad():
        logits = model(tokens).logits
    first = logits if first is None else first
    line = {
        "folder": folder.split("/")[-1],
        "class": type(model).__name__,
        "tokenizer": type(AutoTokenizer.from_pretrained(folder)).__name__,
        "missing": sorted(info["missing_keys"]),
        "unexpected": unexpected,
        "mismatched": sorted(map(str, info["mismatched_keys"])),
        "max_difference": float((logits - first).abs().max()),
    }
    print(json.dumps(line))
