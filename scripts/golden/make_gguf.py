"""Makes test/golden/python.gguf: a GGUF file as PyPI gguf 0.19 writes it, with a value of every type.

    VENV/bin/python scripts/golden/make_gguf.py

The tensors hold 0, 1, 2, … in their own type; `w.q8_0` is quantised by gguf.
"""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, quants

OUT = Path(__file__).resolve().parents[2] / "test" / "golden" / "python.gguf"


def main():
    writer = GGUFWriter(OUT, "deepseek2")
    writer.add_uint8("t.u8", 250)
    writer.add_int8("t.i8", -5)
    writer.add_uint16("t.u16", 65000)
    writer.add_int16("t.i16", -30000)
    writer.add_uint32("t.u32", 4_000_000_000)
    writer.add_int32("t.i32", -2_000_000_000)
    writer.add_float32("t.f32", 0.1)
    writer.add_bool("t.bool", True)
    writer.add_string("t.text", "深度求索 😀")
    writer.add_uint64("t.u64", 2**63 + 1)
    writer.add_int64("t.i64", -(2**40))
    writer.add_float64("t.f64", 0.1)
    writer.add_array("t.texts", ["a", "", "ß"])
    writer.add_array("t.numbers", [1, -2, 3])
    values = np.arange(64, dtype=np.float32).reshape(2, 32)
    writer.add_tensor("w.f32", values)
    writer.add_tensor("w.f16", values[:, :3].astype(np.float16))
    writer.add_tensor("w.q8_0", quants.quantize(values, GGMLQuantizationType.Q8_0), raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
