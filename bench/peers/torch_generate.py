"""Generates greedily with `transformers` generate and its cache; prints tokens per second as JSON lines.

    python torch_generate.py --config nano.json --prompt-len 64 --tokens 128 --dtype bf16 --experts eager

Without --tokens it reads the number of new tokens from each line of standard input. bf16 means bf16 weights.
`tokens_per_sec` counts new tokens over the whole call; `decode_tokens_per_sec` leaves out the prompt and first token.
"""

import argparse
import time

import torch

from peer import add_model_arguments, create_model, facts, requests, say


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_arguments(parser)
    parser.add_argument("--prompt-len", type=int, default=64)
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--repeat", type=int, default=3, help="how often each request is answered")
    parser.add_argument("--warmup", type=int, default=8, help="new tokens generated before measuring")
    parser.add_argument("--cache", choices=["dynamic", "static"], default="dynamic")
    return parser.parse_args()


class Clock:
    """A streamer that only notes when tokens arrive; the first `put` is the prompt."""

    def __init__(self):
        self.times = []

    def put(self, _tokens):
        self.times.append(time.perf_counter())

    def end(self):
        pass


def generate(model, prompt, count, cache):
    """Exactly `count` new tokens after `prompt` [1, T]. Returns seconds of the whole call and of the last count - 1."""
    clock = Clock()
    start = time.perf_counter()
    out = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        min_new_tokens=count,
        max_new_tokens=count,
        pad_token_id=0,
        cache_implementation=cache,
        streamer=clock,
    )
    seconds = time.perf_counter() - start
    if out.shape[1] != prompt.shape[1] + count:
        raise RuntimeError(f"expected {count} new tokens, got {out.shape[1] - prompt.shape[1]}")
    return seconds, clock.times[-1] - clock.times[1]


def main():
    args = parse_arguments()
    model = create_model(args).eval()
    if args.dtype == "bf16":
        model = model.to(torch.bfloat16)
    prompt = torch.randint(2, model.config.vocab_size, (1, args.prompt_len))
    cache = None if args.cache == "dynamic" else args.cache
    generate(model, prompt, args.warmup, cache)
    say(event="ready", **facts(args, model))
    for count in requests(args.tokens):
        for _ in range(args.repeat):
            seconds, decode = generate(model, prompt, count, cache)
            say(
                tokens=count,
                seconds=seconds,
                tokens_per_sec=count / seconds,
                decode_tokens_per_sec=(count - 1) / decode,
            )
        say(event="done", decode_tokens_per_sec=(count - 1) / decode)


if __name__ == "__main__":
    main()
