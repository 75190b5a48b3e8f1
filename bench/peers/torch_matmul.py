"""Best GFLOP/s of torch.matmul on square matrices, one JSON line per size, dtype and thread count."""

import time

import torch

from peer import say

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
REPEATS = 15


def best_seconds(a, b):
    out = torch.empty_like(a)
    times = []
    for _ in range(REPEATS + 2):
        start = time.perf_counter()
        torch.matmul(a, b, out=out)
        times.append(time.perf_counter() - start)
    return min(times)


def main():
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for name, dtype in DTYPES.items():
            for n in (1024, 2048):
                a, b = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype)
                say(threads=threads, dtype=name, n=n, gflops=2 * n**3 / best_seconds(a, b) / 1e9)


if __name__ == "__main__":
    main()
