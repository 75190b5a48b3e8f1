"""Makes test/golden/blocks.safetensors: stored blocks of every type that Fathom reads, with their values in f32.

    VENV/bin/python scripts/golden/make_blocks.py LIBGGML_BASE

Decoded values and the small quantised types come from PyPI gguf 0.19 (quants.py), narrow floats from numpy 2.4.6 and
torch 2.15.0, and the blocks of Q4_K and Q6_K from ggml_quantize_chunk of LIBGGML_BASE, libggml-base.so of npm
@node-llama-cpp/linux-x64 3.22.1. Seeded; needs safetensors.
"""

import ctypes
import sys
from pathlib import Path

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants
from safetensors.numpy import save_file

OUT = Path(__file__).resolve().parents[2] / "test" / "golden" / "blocks.safetensors"
# Byte offsets of the f16 fields of a block, which random bytes would fill with NaN.
HALVES = {
    "F16": [0], "BF16": [], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "IQ4_NL": [0],
    "MXFP4": [], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}  # fmt: skip


def random_halves(rng, count):
    """Finite f16 of every size: normal, subnormal, zero, both signs."""
    bits = rng.integers(0, 0x7C00, count, dtype=np.uint16)
    bits[:: max(1, count // 4)] &= 0x3FF
    return (bits | (rng.integers(0, 2, count, dtype=np.uint16) << 15)).view(np.uint8).reshape(count, 2)


def decoded(rng, name):
    kind = GGMLQuantizationType[name]
    elements, size = GGML_QUANT_SIZES[kind]
    count = {1: 512, 32: 32, 256: 8}[elements]
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for at in HALVES[name]:
        blocks[:, at : at + 2] = random_halves(rng, count)
    if name == "BF16":
        blocks[:, 1] &= 0xBF  # below the exponent of infinity
    values = quants.dequantize(blocks.reshape(1, -1), kind).reshape(-1)
    assert np.isfinite(values).all(), name
    return {f"{name}.blocks": blocks.reshape(-1), f"{name}.values": values.astype(np.float32)}


def rows_to_quantise(rng):
    """Normal, heavy-tailed, one-sided, tiny, constant and empty rows of 256."""
    normal = rng.normal(0, 0.02, (6, 256))
    heavy = rng.standard_t(3, (4, 256)) * 0.01
    shifted = rng.normal(0.05, 0.02, (2, 256))
    positive = np.abs(rng.normal(0, 1, (2, 256)))
    tiny = rng.normal(0, 1e-4, (1, 256))
    constant = np.full((1, 256), -0.25)
    empty = np.zeros((1, 256))
    return np.concatenate([normal, heavy, shifted, positive, tiny, constant, empty]).astype(np.float32)


def quantise_with_ggml(library, name, rows):
    ggml = ctypes.CDLL(library)
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
    kind = GGMLQuantizationType[name]
    elements, size = GGML_QUANT_SIZES[kind]
    out = np.zeros(rows.size // elements * size, dtype=np.uint8)
    rows = np.ascontiguousarray(rows)
    written = ggml.ggml_quantize_chunk(int(kind), rows.ctypes.data, out.ctypes.data, 0, *rows.shape, None)
    assert written == out.size
    return out


def narrow_floats(rng):
    exponents = rng.integers(-30, 20, 2000)
    values = (rng.normal(0, 1, 2000) * 2.0**exponents).astype(np.float32)
    ties = (np.arange(1, 200) * 2.0**-25).astype(np.float32)
    edges = np.array([0, -0.0, 65504, 65519.99, 65520, 1e30, -1e30, 2**-24, 2**-25, 1.5 * 2**-25, np.inf], dtype=np.float32)
    wide = np.concatenate([values, ties, 1 + ties * 2**14, edges]).astype(np.float32)
    small = np.clip(np.concatenate([values, np.arange(-460, 460) / 2, np.arange(0, 64) * 2.0**-12]), -448, 448)
    small = small.astype(np.float32)
    codes = torch.arange(255, dtype=torch.uint8)
    return {
        "f16.values": wide,
        "f16.bits": wide.astype(np.float16).view(np.uint16).view(np.uint8),
        "e4m3.values": small,
        "e4m3.bits": torch.from_numpy(small).to(torch.float8_e4m3fn).view(torch.uint8).numpy(),
        "e4m3.decoded": torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float().numpy(),
        "e8m0.decoded": codes.view(torch.float8_e8m0fnu).float().numpy(),
    }


def main():
    rng = np.random.default_rng(20260111)
    tensors = {}
    for name in HALVES:
        tensors |= decoded(rng, name)
    rows = rows_to_quantise(rng)
    tensors["rows"] = rows
    for name in ["Q8_0", "Q5_0", "Q4_0"]:
        tensors[f"{name}.quantised"] = quants.quantize(rows, GGMLQuantizationType[name]).reshape(-1)
    for name in ["Q4_K", "Q6_K"]:
        tensors[f"{name}.quantised"] = quantise_with_ggml(sys.argv[1], name, rows)
    tensors |= narrow_floats(rng)
    save_file({name: np.ascontiguousarray(value) for name, value in sorted(tensors.items())}, OUT)


if __name__ == "__main__":
    main()
