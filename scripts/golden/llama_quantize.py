"""Makes test/golden/llama_quantize.json: what llama.cpp's own `llama-quantize --dry-run` says of sizes and types.

    python scripts/golden/llama_quantize.py LLAMA_QUANTIZE [WORK_FOLDER]

The input files are sparse: a true header with every tensor in F16 (norms and routers F32, as the converter writes
them), then a hole, so that 671 B parameters take a few MB of disk. LLAMA_QUANTIZE is the tool of the release named in
RELEASE; its sources are in the npm package node-llama-cpp 3.22.1. Needs PyPI gguf 0.19.
"""

import collections
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np

RELEASE = "llama.cpp v0.5.0"
OUT = Path(__file__).resolve().parents[2] / "test" / "golden" / "llama_quantize.json"

MODELS = {
    "deepseek-v2-lite": dict(
        d=2048, layers=27, dense=1, heads=16, q=0, kv=512, nope=128, rope=64, v=128, f=10944, m=1408, experts=64,
        shared=2, top=6, vocab=102400, bias=False),
    "deepseek-v2": dict(
        d=5120, layers=60, dense=1, heads=128, q=1536, kv=512, nope=128, rope=64, v=128, f=12288, m=1536, experts=160,
        shared=2, top=6, vocab=102400, bias=False),
    "deepseek-v3": dict(
        d=7168, layers=61, dense=3, heads=128, q=1536, kv=512, nope=128, rope=64, v=128, f=18432, m=2048, experts=256,
        shared=1, top=8, vocab=129280, bias=True),
    "deepseek-llm-7b": dict(d=4096, layers=30, heads=32, kv_heads=32, f=11008, vocab=102400),
    "deepseek-llm-67b": dict(d=8192, layers=95, heads=64, kv_heads=8, f=22016, vocab=102400),
}  # fmt: skip

TYPES = [
    "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_0", "Q5_1", "Q4_K_M", "Q4_K_S", "Q4_0", "Q4_1", "Q3_K_L",
    "Q3_K_M", "Q3_K_S", "Q2_K", "Q2_K_S", "IQ4_NL", "IQ4_XS", "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS", "IQ2_M", "IQ2_S",
    "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S",
]  # fmt: skip


def dense_tensors(c):
    d, kv = c["d"], c["d"] // c["heads"] * c["kv_heads"]
    for n in range(c["layers"]):
        b = f"blk.{n}."
        yield b + "attn_norm.weight", [d], True
        yield b + "attn_q.weight", [d, d], False
        yield b + "attn_k.weight", [kv, d], False
        yield b + "attn_v.weight", [kv, d], False
        yield b + "attn_output.weight", [d, d], False
        yield b + "ffn_norm.weight", [d], True
        yield b + "ffn_gate.weight", [c["f"], d], False
        yield b + "ffn_down.weight", [d, c["f"]], False
        yield b + "ffn_up.weight", [c["f"], d], False


def tensors(c):
    """Every tensor of a converted checkpoint: name, dimensions (slowest first), whether it stays F32."""
    d, h = c["d"], c["heads"]
    yield "token_embd.weight", [c["vocab"], d], False
    yield "output_norm.weight", [d], True
    yield "output.weight", [c["vocab"], d], False
    if "kv_heads" in c:
        yield from dense_tensors(c)
        return
    for n in range(c["layers"]):
        b = f"blk.{n}."
        yield b + "attn_norm.weight", [d], True
        if c["q"]:
            yield b + "attn_q_a.weight", [c["q"], d], False
            yield b + "attn_q_a_norm.weight", [c["q"]], True
            yield b + "attn_q_b.weight", [h * (c["nope"] + c["rope"]), c["q"]], False
        else:
            yield b + "attn_q.weight", [h * (c["nope"] + c["rope"]), d], False
        yield b + "attn_kv_a_mqa.weight", [c["kv"] + c["rope"], d], False
        yield b + "attn_kv_a_norm.weight", [c["kv"]], True
        yield b + "attn_k_b.weight", [h, c["kv"], c["nope"]], False
        yield b + "attn_v_b.weight", [h, c["v"], c["kv"]], False
        yield b + "attn_output.weight", [d, h * c["v"]], False
        yield b + "ffn_norm.weight", [d], True
        if n < c["dense"]:
            yield b + "ffn_gate.weight", [c["f"], d], False
            yield b + "ffn_down.weight", [d, c["f"]], False
            yield b + "ffn_up.weight", [c["f"], d], False
            continue
        yield b + "ffn_gate_inp.weight", [c["experts"], d], True
        if c["bias"]:
            yield b + "exp_probs_b.bias", [c["experts"]], True
        yield b + "ffn_gate_exps.weight", [c["experts"], c["m"], d], False
        yield b + "ffn_down_exps.weight", [c["experts"], d, c["m"]], False
        yield b + "ffn_up_exps.weight", [c["experts"], c["m"], d], False
        yield b + "ffn_gate_shexp.weight", [c["shared"] * c["m"], d], False
        yield b + "ffn_down_shexp.weight", [d, c["shared"] * c["m"]], False
        yield b + "ffn_up_shexp.weight", [c["shared"] * c["m"], d], False


def mla_keys(w, c):
    w.add_head_count_kv(1)
    w.add_leading_dense_block_count(c["dense"])
    if c["q"]:
        w.add_q_lora_rank(c["q"])
    w.add_kv_lora_rank(c["kv"])
    w.add_key_length(c["kv"] + c["rope"])
    w.add_value_length(c["kv"])
    w.add_key_length_mla(c["nope"] + c["rope"])
    w.add_value_length_mla(c["v"])
    w.add_expert_feed_forward_length(c["m"])
    w.add_expert_count(c["experts"])
    w.add_expert_used_count(c["top"])
    w.add_expert_shared_count(c["shared"])
    w.add_rope_dimension_count(c["rope"])


def write_sparse(path, c):
    dense = "kv_heads" in c
    w = gguf.GGUFWriter(path, "llama" if dense else "deepseek2")
    w.add_block_count(c["layers"])
    w.add_context_length(4096)
    w.add_embedding_length(c["d"])
    w.add_feed_forward_length(c["f"])
    w.add_head_count(c["heads"])
    w.add_layer_norm_rms_eps(1e-6)
    w.add_vocab_size(c["vocab"])
    if dense:
        w.add_head_count_kv(c["kv_heads"])
        w.add_rope_dimension_count(c["d"] // c["heads"])
    else:
        mla_keys(w, c)
    w.add_file_type(1)
    for name, shape, keep in tensors(c):
        size, kind = (4, np.float32) if keep else (2, np.float16)
        w.add_tensor_info(name, shape, np.dtype(kind), size * int(np.prod(shape, dtype=np.int64)))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    w.close()
    # Data begins at a multiple of 32; every tensor here is a multiple of 32 bytes long.
    start = -(-os.path.getsize(path) // 32) * 32
    data = sum((4 if keep else 2) * int(np.prod(shape, dtype=np.int64)) for _, shape, keep in tensors(c))
    os.truncate(path, start + data)


def write_imatrix(path):
    """An importance matrix with one entry: its presence is what changes the choice of types."""
    name = b"blk.0.attn_output.weight"
    with open(path, "wb") as out:
        out.write(struct.pack("<i", 1) + struct.pack("<i", len(name)) + name)
        out.write(struct.pack("<iif", 1, 1, 1.0))


LINE = re.compile(r"\[ *\d+/ *\d+\] +(\S+) +- \[.*?\], type = +(\w+), +size = +[\d.]+ MiB(?: -> +[\d.]+ MiB \((\w+)\))?")


def dry_run(tool, path, kind, imatrix):
    extra = ["--imatrix", imatrix] if imatrix else []
    done = subprocess.run([tool, "--dry-run", *extra, path, kind, "1"], capture_output=True, text=True, check=True)
    text = done.stdout + done.stderr
    types = collections.Counter((new or old) for _, old, new in LINE.findall(text))
    mib = float(re.search(r"quant size += +([\d.]+) MiB", text).group(1))
    return {"mib": mib, "tensors": dict(sorted(types.items()))}


def main():
    tool = sys.argv[1]
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.mkdtemp())
    imatrix = str(folder / "one.imatrix")
    write_imatrix(imatrix)
    sizes = {}
    for name, c in MODELS.items():
        path = str(folder / f"{name}.gguf")
        write_sparse(path, c)
        sizes[name] = {
            kind: {"plain": dry_run(tool, path, kind, None), "imatrix": dry_run(tool, path, kind, imatrix)}
            for kind in TYPES
        }
        os.remove(path)
    OUT.write_text(json.dumps({"release": RELEASE, "models": sizes}, separators=(",", ":")) + "\n")


main()
