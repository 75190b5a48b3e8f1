"""Makes test/golden/checkpoints/*.safetensors: logits, 64 greedy tokens and gradients of models in every architecture that
runs, as `transformers` computes them, after proving the library against plain float64 formulas.

    HF_HUB_OFFLINE=1 python scripts/golden/make_checkpoints.py [NAME ...]

Versions are pinned in requirements.txt. Weights are not stored: architectures.py and the test draw the same ones.
"""

import json
import platform
import sys

import numpy as np
import torch
import transformers

import make
import reference
from architectures import CONFIGS, draw_ids, draw_weights
from library import build, everything_double, gradients_by_checkpoint_name
from make import gradient_error, logits_error, require, write_safetensors

OUT = make.OUT / "checkpoints"
PROMPT, GREEDY = 32, 64
# A choice of experts or of the next token that is closer than this could fall the other way in float32.
EXPERT_GAP = 1e-4
# In parts of the logits' range.
TOKEN_GAP = 1e-3
EXACT = 1e-10
# The library's own float32 error; ours may be 2e-5 of the range, 1e-4 for a gradient.
FLOAT32 = {"logits": 4e-6, "gradient": 2e-5}
# How far, in parts of the range, a deliberate fault must move the logits: far above what is allowed to ours.
FAULT_SHOWS = 1e-4


def token_gap(logits):
    """Smallest distance of the best two logits of a row, in parts of the range."""
    best = logits.topk(2, dim=-1).values
    return ((best[..., 0] - best[..., 1]).min() / (logits.max() - logits.min())).item()


def grow(weights, config, seed):
    """Prompt and greedy tokens by the float64 model, None when a choice is too close."""
    ids = torch.tensor(draw_ids(config, seed, "prompt", PROMPT))[None]
    for _ in range(GREEDY):
        logits, trace = reference.forward(weights, config, ids)
        if min([layer["gap"] for layer in trace], default=1.0) < EXPERT_GAP or token_gap(logits) < TOKEN_GAP:
            return None
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
    return ids


def cross_entropy(logits, targets):
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def truth_of(weights, config, ids, targets):
    weights = {name: w.clone().requires_grad_(not make.is_bias(name)) for name, w in weights.items()}
    trained = {name: w for name, w in weights.items() if w.requires_grad}
    logits, trace = reference.forward(weights, config, ids)
    gradients = torch.autograd.grad(cross_entropy(logits, targets), list(trained.values()), materialize_grads=True)
    gaps = {"experts": min([layer["gap"] for layer in trace], default=1.0), "tokens": token_gap(logits.detach())}
    return {"logits": logits.detach(), "gradients": dict(zip(trained, gradients, strict=True)), "gaps": gaps}


def find_seed(config):
    for seed in range(1, 2000):
        weights = {name: torch.tensor(w).double() for name, w in draw_weights(config, seed).items()}
        with torch.no_grad():
            ids = grow(weights, config, seed)
        if ids is None:
            continue
        targets = torch.tensor(draw_ids(config, seed, "targets", ids.numel()))[None]
        truth = truth_of(weights, config, ids, targets)
        if truth["gaps"]["experts"] >= EXPERT_GAP and truth["gaps"]["tokens"] >= TOKEN_GAP:
            return seed, weights, ids, targets, truth
    raise AssertionError("no seed keeps all choices apart")


def library_run(text, weights, ids, targets, dtype):
    model = build(text, weights, dtype)
    logits = model(input_ids=ids, use_cache=False).logits
    cross_entropy(logits, targets).backward()
    gradients = gradients_by_checkpoint_name(model)
    zeros = {name: g if g is not None else torch.zeros_like(weights[name]) for name, g in gradients.items()}
    return {"logits": logits.detach(), "gradients": zeros, "model": model.eval()}


def errors(run, truth):
    return {
        "logits": logits_error(run["logits"].double(), truth["logits"]),
        "gradient": gradient_error(run["gradients"], truth["gradients"]),
    }


def fault_shifts(weights, config, ids, truth):
    with torch.no_grad():
        shifts = {
            fault: logits_error(reference.forward(weights, config, ids, (fault,))[0], truth["logits"])
            for fault in reference.checkpoint_faults(config)
        }
    for fault, shift in shifts.items():
        require(shift > FAULT_SHOWS, f"fault {fault} moves the logits by only {shift} of their range")
    return shifts


def make_one(name):
    config = CONFIGS[name]
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    seed, weights, ids, targets, truth = find_seed(config)
    faults = fault_shifts(weights, config, ids, truth)
    with everything_double():
        exact = errors(library_run(text, weights, ids, targets, torch.float64), truth)
    require(max(exact.values()) < EXACT, f"{name}: library in float64 differs from the formulas: {exact}")
    run = library_run(text, weights, ids, targets, torch.float32)
    found = errors(run, truth)
    for what, limit in FLOAT32.items():
        require(found[what] < limit, f"{name}: library in float32 is too far from float64: {found}")
    length = PROMPT + GREEDY
    settings = {"do_sample": False, "max_length": length, "min_length": length, "eos_token_id": None, "pad_token_id": 0}
    written = run["model"].generate(ids[:, :PROMPT], attention_mask=torch.ones_like(ids[:, :PROMPT]), **settings)
    require(torch.equal(written, ids), f"{name}: the library's greedy tokens differ")
    facts = {
        "name": name,
        "seed": seed,
        "prompt": PROMPT,
        "smallest_gap": truth["gaps"],
        "library_error_float64": exact,
        "library_error_float32": found,
        "fault_shift": faults,
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    tensors = {f"grad.{key}": g.numpy() for key, g in run["gradients"].items() if not make.is_bias(key)}
    tensors |= {"logits": run["logits"][0].numpy()}
    tensors |= {"input_ids": ids[0].int().numpy(), "targets": targets[0].int().numpy()}
    size, digest = write_safetensors(OUT / f"{name}.safetensors", tensors, {"config": text, "facts": json.dumps(facts)})
    print(f"{name}: seed {seed}, gaps {make.show(truth['gaps'])}; float64 {make.show(exact)}; float32 {make.show(found)}")
    print(f"  faults {make.show(faults)}; {size} bytes, sha256 {digest}", flush=True)


def main(names):
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    OUT.mkdir(parents=True, exist_ok=True)
    for name in names or CONFIGS:
        make_one(name)


if __name__ == "__main__":
    main(sys.argv[1:])
