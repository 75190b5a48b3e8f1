"""What both torch peers share: the model of a config.json, threads, requests from a bench, and facts of the run."""

import json
import os
import sys
import types

import torch
import transformers
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

CLASSES = {
    "deepseek_v2": (transformers.DeepseekV2Config, transformers.DeepseekV2ForCausalLM),
    "deepseek_v3": (transformers.DeepseekV3Config, transformers.DeepseekV3ForCausalLM),
}


# The first three are the library's; its other two, deepgemm and sonicmoe, need a GPU.
EXPERTS = ["eager", "grouped_mm", "batched_mm", "grouped_mm_cast"]
EXPERT_FIELDS = ("num_experts", "has_gate", "has_bias", "has_post_expert_norm", "is_transposed", "_is_expert_parallel")


def grouped_mm_cast(experts, hidden_states, top_k_index, top_k_weights):
    """transformers' grouped_mm with the autocast it lacks: grouped_mm alone computes in the weights' float32.

    Not one of the library's own implementations, but what its user could write to be faster.
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden_states.dtype
    cast = types.SimpleNamespace(
        gate_up_proj=experts.gate_up_proj.to(dtype),
        down_proj=experts.down_proj.to(dtype),
        _apply_gate=experts._apply_gate,
        **{field: getattr(experts, field) for field in EXPERT_FIELDS},
    )
    out = ALL_EXPERTS_FUNCTIONS["grouped_mm"](cast, hidden_states.to(dtype), top_k_index, top_k_weights.to(dtype))
    return out.to(hidden_states.dtype)


ALL_EXPERTS_FUNCTIONS.register("grouped_mm_cast", grouped_mm_cast)


def add_model_arguments(parser):
    parser.add_argument("--config", required=True, help="path of a Hugging Face config.json")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--experts", default="eager", choices=EXPERTS)
    parser.add_argument("--attention", choices=["eager", "sdpa"], default="sdpa")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)


def create_model(args):
    """The model with fresh float32 weights."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    with open(args.config, encoding="utf-8") as file:
        raw = json.load(file)
    config_class, model_class = CLASSES[raw["model_type"]]
    config = config_class.from_dict(raw)
    config._attn_implementation = args.attention
    config._experts_implementation = args.experts
    return model_class(config)


def say(**fields):
    """One JSON line."""
    print(json.dumps(fields), flush=True)


def facts(args, model):
    return {
        **{key: value for key, value in vars(args).items() if value is not None},
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "load": os.getloadavg()[0],
    }


def requests(rounds):
    """The size of each piece of work: `rounds` itself, or one number per line of standard input until it ends.

    A bench that takes turns with this process writes a line, waits for the answer, and does its own share.
    """
    if rounds is not None:
        yield rounds
        return
    for line in sys.stdin:
        yield int(line)
