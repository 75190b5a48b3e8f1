"""Reads a GGUF file with the gguf package and compares its values with those of an f32 file of the same model.

    python gguf_read.py F32.gguf FILE.gguf

Prints one JSON line: tensors, metadata keys, and for each type the relative error of its values.
"""

import json
import sys

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize


def values(tensor):
    return dequantize(tensor.data, tensor.tensor_type).astype(np.float64).reshape(-1)


exact, file = (GGUFReader(path) for path in sys.argv[1:3])
due = {tensor.name: tensor for tensor in exact.tensors}
sums = {}
for tensor in file.tensors:
    a, b = values(due.pop(tensor.name)), values(tensor)
    error, norm = sums.get(tensor.tensor_type.name, (0.0, 0.0))
    sums[tensor.tensor_type.name] = (error + float(((a - b) ** 2).sum()), norm + float((a**2).sum()))
assert not due, f"missing: {list(due)}"
errors = {name: float(f"{(error / norm) ** 0.5:.3g}") for name, (error, norm) in sums.items()}
print(json.dumps({"tensors": len(file.tensors), "keys": len(file.fields), "relative_error": errors}))
