"""Makes test/golden/*.safetensors from `transformers`, after proving the library against plain float64 formulas.

    HF_HUB_OFFLINE=1 python scripts/golden/make.py [NAME ...]

Versions are pinned in requirements.txt; the run needs no network and no accelerator.
"""

import hashlib
import json
import platform
import struct
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

import reference
from library import (
    build,
    everything_double,
    gradients_by_checkpoint_name,
    library_config,
    record_routing,
)
from variants import VARIANTS, config_text, draw_tokens, draw_weights

OUT = Path(__file__).resolve().parents[2] / "test" / "golden"
STEPS = 10
ADAMW = {"lr": 1e-3, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}
# A choice closer than this could fall the other way in float32; the files keep five times the distance asked of them.
SMALLEST_GAP = 5e-5
# Two float64 computations of one formula.
EXACT = 1e-10
# Our float32 must come within 1e-5 of the library's; the library itself must then be well within that of the truth.
FLOAT32 = 2.5e-6
# How far, in parts of the logits' range, each deliberate fault must move them.
FAULT_SHOWS = 1e-2
LARGEST_FILE = 1_000_000


def require(condition, text):
    if not condition:
        raise AssertionError(text)


def relative_l2(a, b, floor):
    return ((a - b).norm() / max(b.norm().item(), floor)).item()


def logits_error(a, b):
    """Largest difference in parts of the range of `b`."""
    return ((a - b).abs().max() / (b.max() - b.min())).item()


def gradient_error(gradients, truth):
    """Worst relative L2 error of one tensor; norms below 1e-7 of the largest count as that."""
    floor = 1e-7 * max(g.norm().item() for g in truth.values())
    require(gradients.keys() == truth.keys(), "gradients: names differ")
    for name, g in truth.items():
        require(g.any() or not gradients[name].any(), f"{name}: gradient must be exactly 0")
    return max(relative_l2(gradients[name].double(), g, floor) for name, g in truth.items())


def is_bias(name):
    return name.endswith("e_score_correction_bias")


def reference_run(weights, config, tokens, clip):
    """The float64 model: first logits, gradients and routing; all losses, choices and the smallest gap of each step.

    None as soon as a gap is too small.
    """
    weights = {name: w.double().requires_grad_(not is_bias(name)) for name, w in weights.items()}
    trained = {name: w for name, w in weights.items() if not is_bias(name)}
    optimizer = reference.AdamW(trained, clip=clip, **ADAMW)
    run = {"losses": [], "gaps": [], "choices": []}
    for step in range(STEPS):
        logits, trace = reference.forward(weights, config, tokens)
        run["gaps"].append(min(layer["gap"] for layer in trace))
        if run["gaps"][-1] < SMALLEST_GAP:
            return None
        loss = reference.cross_entropy(logits, tokens)
        gradients = torch.autograd.grad(loss, list(trained.values()), materialize_grads=True)
        gradients = dict(zip(trained, gradients, strict=True))
        if step == 0:
            run |= {"logits": logits.detach(), "gradients": gradients, "trace": trace}
        run["losses"].append(loss.item())
        run["choices"].append([layer["indices"].sort(-1).values for layer in trace])
        optimizer.step(gradients)
    return run


def library_run(text, weights, tokens, dtype, clip):
    """The same of the library."""
    model = build(text, weights, dtype)
    calls = record_routing(model)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, **ADAMW)
    run = {"losses": [], "choices": []}
    for step in range(STEPS):
        calls.clear()
        out = model(input_ids=tokens, labels=tokens, use_cache=False)
        optimizer.zero_grad()
        out.loss.backward()
        if step == 0:
            gradients = {name: g.clone() for name, g in gradients_by_checkpoint_name(model).items()}
            run |= {"logits": out.logits.detach(), "gradients": gradients, "trace": list(calls)}
        run["losses"].append(out.loss.item())
        run["choices"].append([indices.sort(-1).values for indices, _ in calls])
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return run


def check_formulas(text, config):
    """The library's own numbers for YaRN and the softmax scale."""
    model_config = library_config(text)
    with everything_double():
        model = build(text, {k: torch.tensor(v) for k, v in draw_weights(config, 0, None).items()}, torch.float64)
    rotary = model.model.rotary_emb
    truth = reference.rope_frequencies(config)
    require((rotary.inv_freq / truth - 1).abs().max() < EXACT, f"YaRN frequencies: {rotary.inv_freq} for {truth}")
    s = config["rope_scaling"]
    gain = reference.mscale(s["factor"], s["mscale"]) / reference.mscale(s["factor"], s["mscale_all_dim"])
    require(abs(rotary.attention_scaling - gain) < EXACT, f"cos/sin gain: {rotary.attention_scaling} for {gain}")
    positions = s["factor"] * s["original_max_position_embeddings"]
    require(model_config.max_position_embeddings == positions, f"max_position_embeddings: {positions} wanted")
    for layer in model.model.layers:
        attn = layer.self_attn
        require(abs(attn.scaling - reference.softmax_scale(config)) < EXACT, f"softmax scale: {attn.scaling}")
        norms = [layer.input_layernorm, layer.post_attention_layernorm, attn.kv_a_layernorm, model.model.norm]
        norms += [attn.q_a_layernorm] if attn.q_lora_rank else []
        require({n.variance_epsilon for n in norms} == {config["rms_norm_eps"]}, "one epsilon in all norms")


def check_routing(run, truth, tolerance):
    """Same experts at every step; at the first also the same weights."""
    for step, (ours, theirs) in enumerate(zip(truth["choices"], run["choices"], strict=True)):
        for layer, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            require(torch.equal(a, b), f"step {step}, expert layer {layer}: another choice of experts")
    for ours, (indices, weights) in zip(truth["trace"], run["trace"], strict=True):
        expected = ours["weights"].gather(-1, ours["indices"].argsort(dim=-1))
        error = (weights.gather(-1, indices.argsort(dim=-1)) - expected).abs().max().item()
        require(error < tolerance, f"expert weights: at most {tolerance} apart, got {error}")


def check_faults(weights, config, tokens, truth):
    """Each deliberate fault must show, else the golden file would let it pass. Returns fault -> change of logits."""
    weights = {name: w.double() for name, w in weights.items()}
    with torch.no_grad():
        shift = {
            fault: logits_error(reference.forward(weights, config, tokens, (fault,))[0], truth["logits"])
            for fault in reference.faults_of(config)
        }
    for fault, change in shift.items():
        require(change > FAULT_SHOWS, f"fault {fault} moves the logits by only {change} of their range")
    return shift


def unused_experts(truth, config):
    """[[layer, expert], ...] without tokens at the first step."""
    first = config["first_k_dense_replace"]
    return [
        [first + n, e]
        for n, chosen in enumerate(truth["choices"][0])
        for e in range(config["n_routed_experts"])
        if not (chosen == e).any()
    ]


def find_seed(config, clip, starved):
    """First seed whose choices are all safely apart, with its weights, tokens and float64 run."""
    for seed in range(1, 200):
        weights = {name: torch.tensor(w) for name, w in draw_weights(config, seed, starved).items()}
        tokens = torch.tensor(draw_tokens(config, seed)).long()
        truth = reference_run(weights, config, tokens, clip)
        if truth is not None:
            return seed, weights, tokens, truth
    raise AssertionError(f"no seed below 200 keeps every gap at {SMALLEST_GAP} or more")


def write_safetensors(path, tensors, metadata):
    """Sorted names, so that the same contents give the same bytes."""
    kinds = {"float32": "F32", "int32": "I32"}
    header, blobs, offset = {"__metadata__": dict(sorted(metadata.items()))}, [], 0
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        end = offset + array.nbytes
        header[name] = {"dtype": kinds[str(array.dtype)], "shape": list(array.shape), "data_offsets": [offset, end]}
        blobs.append(array.tobytes())
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = struct.pack("<Q", len(text)) + text + b"".join(blobs)
    require(len(data) <= LARGEST_FILE, f"{path.name}: at most {LARGEST_FILE} bytes, got {len(data)}")
    path.write_bytes(data)
    return len(data), hashlib.sha256(data).hexdigest()


def golden_tensors(weights, tokens, run, config):
    tensors = {name: w.numpy() for name, w in weights.items()}
    tensors |= {f"grad.{name}": g.numpy() for name, g in run["gradients"].items()}
    tensors |= {"input_ids": tokens.int().numpy(), "labels": tokens[:, 1:].int().numpy()}
    tensors["logits"] = run["logits"].numpy()
    for n, (indices, expert_weights) in enumerate(run["trace"], config["first_k_dense_replace"]):
        indices, order = indices.sort(-1)
        tensors[f"router.{n}.indices"] = indices.int().numpy()
        tensors[f"router.{n}.weights"] = expert_weights.gather(-1, order).numpy()
    return tensors


def make(name):
    config, clip, starved = VARIANTS[name]
    text = config_text(config)
    check_formulas(text, config)
    seed, weights, tokens, truth = find_seed(config, clip, starved)
    faults = check_faults(weights, config, tokens, truth)

    with everything_double():
        exact = library_run(text, weights, tokens, torch.float64, clip)
    check_routing(exact, truth, EXACT)
    exact_errors = errors(exact, truth)
    require(max(exact_errors.values()) < EXACT, f"{name}: library in float64 differs from the formulas: {exact_errors}")

    run = library_run(text, weights, tokens, torch.float32, clip)
    check_routing(run, truth, FLOAT32)
    float_errors = errors(run, truth)
    require(max(float_errors.values()) < FLOAT32, f"{name}: library in float32 is too far from float64: {float_errors}")
    require(starved is None or unused_experts(truth, config), f"{name}: an expert without tokens is wanted")

    facts = {
        "config": text,
        "config_saved": library_config(text).to_json_string(),
        "facts": {
            "name": name,
            "seed": seed,
            "loss": run["losses"][0],
            "losses": run["losses"],
            "losses_float64": truth["losses"],
            "optimizer": {"name": "AdamW", **ADAMW, "decay_on": "tensors of two dimensions", "clip_global_norm": clip},
            "smallest_gap": truth["gaps"],
            "experts_without_tokens": unused_experts(truth, config),
            "library_error_float64": exact_errors,
            "library_error_float32": float_errors,
            "fault_shift": faults,
            "versions": {
                "python": platform.python_version(),
                "numpy": np.__version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
            "setting": "CPU, float32, one thread, eager attention, eager experts, no dropout, no balance loss",
        },
    }
    metadata = {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
    tensors = golden_tensors(weights, tokens, run, config)
    size, digest = write_safetensors(OUT / f"{name}.safetensors", tensors, metadata)
    print(f"{name}: seed {seed}, gap {min(truth['gaps']):.1e}, loss {run['losses'][0]:.6f} -> {run['losses'][-1]:.6f}")
    print(f"  float64 {show(exact_errors)}; float32 {show(float_errors)}; unused {unused_experts(truth, config)}")
    print(f"  faults {show(faults)}")
    print(f"  {size} bytes, sha256 {digest}", flush=True)


def errors(run, truth):
    """Largest error of logits (of their range), of a gradient (relative L2) and of a loss (nats)."""
    losses = zip(run["losses"], truth["losses"], strict=True)
    return {
        "logits": logits_error(run["logits"].double(), truth["logits"]),
        "gradient": gradient_error(run["gradients"], truth["gradients"]),
        "losses": max(abs(a - b) for a, b in losses),
    }


def show(numbers):
    return ", ".join(f"{key} {value:.1e}" for key, value in numbers.items())


def main(names):
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    OUT.mkdir(parents=True, exist_ok=True)
    for name in names or VARIANTS:
        make(name)


if __name__ == "__main__":
    main(sys.argv[1:])
