"""Loads the folders that folders.ts has written with transformers alone: no key missing, none left over but those of MTP
layers, the same ids, the same logits.

    HF_HUB_OFFLINE=1 VENV/bin/python scripts/golden/check_folders.py OUT
"""

import re
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

CLASSES = {"llama": "LlamaForCausalLM", "deepseek_v2": "DeepseekV2ForCausalLM", "deepseek_v3": "DeepseekV3ForCausalLM"}
# In parts of the logits' range.
TOLERANCE = 2e-5


def check(run):
    folder = run / (run / "latest").read_text().strip()
    with safe_open(run / "expected.safetensors", "pt") as file:
        text, ids, logits = file.metadata()["text"], file.get_tensor("ids").long(), file.get_tensor("logits")
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager", dtype=torch.float32
    )
    assert type(model).__name__ == CLASSES[run.name], type(model)
    mtp = re.compile(rf"model\.layers\.{model.config.num_hidden_layers}\.")
    left_over = [key for key in info["unexpected_keys"] if not mtp.match(key)]
    wrong = [*info["missing_keys"], *left_over, *info["mismatched_keys"], *info["error_msgs"]]
    assert not wrong, wrong
    tokenizer = AutoTokenizer.from_pretrained(folder)
    own = tokenizer(text)["input_ids"]
    assert own == ids.tolist() or own[1:] == ids.tolist(), (own, ids.tolist())
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    with torch.no_grad():
        found = model(input_ids=ids[None]).logits[0]
    error = ((found - logits).abs().max() / (logits.max() - logits.min())).item()
    assert error <= TOLERANCE, error
    mtp_keys = len(info["unexpected_keys"])
    print(f"{run.name}: {type(tokenizer).__name__}, {len(ids)} ids alike, {mtp_keys} MTP keys, logits {error:.1e} of the range")


if __name__ == "__main__":
    for name in CLASSES:
        check(Path(sys.argv[1]) / name)
