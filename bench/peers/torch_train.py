"""Trains a DeepSeek model of `transformers` on random tokens and prints tokens per second as JSON lines.

    python torch_train.py --config nano.json --batch 8 --seq-len 256 --steps 20 --dtype bf16 --experts eager --compile

Without --steps it reads the number of steps from each line of standard input. AdamW (fused), clip 1.0, no MTP, no
balance loss; bf16 means autocast with float32 weights. The first line describes the run, then one line per step, and
after each request one with `median_tokens_per_sec`.
"""

import argparse
import contextlib
import resource
import statistics
import time

import torch

from peer import add_model_arguments, create_model, facts, requests, say

BATCHES = 4


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_arguments(parser)
    parser.add_argument("--batch", type=int, required=True, help="windows per step")
    parser.add_argument("--seq-len", type=int, required=True, help="tokens per window")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


def create_optimizer(model):
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=3e-4, betas=(0.9, 0.95), eps=1e-8, fused=True)


def create_step(args, model):
    """A function that does one training step on a batch [B, T] and returns its loss."""
    optimizer = create_optimizer(model)
    run = torch.compile(model) if args.compile else model

    def step(tokens):
        cast = torch.autocast("cpu", torch.bfloat16) if args.dtype == "bf16" else contextlib.nullcontext()
        with cast:
            loss = run(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def main():
    args = parse_arguments()
    model = create_model(args).train()
    step = create_step(args, model)
    vocab = model.config.vocab_size
    batches = [torch.randint(vocab, (args.batch, args.seq_len)) for _ in range(BATCHES)]
    started = time.perf_counter()
    for n in range(args.warmup):
        step(batches[n % BATCHES])
    say(event="ready", warmup_sec=time.perf_counter() - started, **facts(args, model))

    done, tokens = 0, args.batch * args.seq_len
    for steps in requests(args.steps):
        rates = []
        for _ in range(steps):
            start, cpu = time.perf_counter(), time.process_time()
            loss = step(batches[done % BATCHES])
            rates.append(tokens / (time.perf_counter() - start))
            done += 1
            say(step=done, loss=loss, tokens_per_sec=rates[-1], cpu_sec=time.process_time() - cpu)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        say(event="done", steps=steps, median_tokens_per_sec=statistics.median(rates), rss_peak_bytes=peak)


if __name__ == "__main__":
    main()
