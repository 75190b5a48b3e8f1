"""The `transformers` model under checkpoint names: built from config.json, loaded, run in float32 or float64."""

import contextlib
import json

import torch
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Moe


class DeepseekForCausalLM(LlamaForCausalLM):
    """DeepSeekMoE, which has no class of its own: LLaMA's attention with the mixture of V2."""

    def __init__(self, config):
        super().__init__(config)
        mixture = DeepseekV2Config.from_dict(config.mixture | {"model_type": "deepseek_v2"})
        mixture._experts_implementation = "eager"
        for layer in self.model.layers[config.mixture["first_k_dense_replace"] :]:
            layer.mlp = DeepseekV2Moe(mixture)


def deepseek_config(raw):
    config = LlamaConfig.from_dict(raw | {"model_type": "llama"})
    config.mixture = raw | {"topk_method": "greedy"}
    return config


CLASSES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "deepseek_v2": (DeepseekV2Config, DeepseekV2ForCausalLM),
    "deepseek_v3": (DeepseekV3Config, DeepseekV3ForCausalLM),
}


@contextlib.contextmanager
def everything_double():
    """Inside, the library's own casts to float32 (norms, router, softmax, rotary tables) are casts to float64."""
    float32, to_float = torch.float32, torch.Tensor.float
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.float32 = torch.float = float32
        torch.Tensor.float = to_float


def library_config(text):
    raw = json.loads(text)
    if raw["model_type"] == "deepseek":
        return deepseek_config(raw)
    return CLASSES[raw["model_type"]][0].from_dict(raw)


def stacked(weights, config):
    """Checkpoint names -> the library's: experts of a layer become gate_up_proj [E, 2m, d] and down_proj [E, d, m]."""
    out = {name: value for name, value in weights.items() if ".mlp.experts." not in name}
    layers = config["num_hidden_layers"]
    for n in range(config.get("first_k_dense_replace", layers), layers):
        prefix = f"model.layers.{n}.mlp.experts."
        gate, up, down = (
            torch.stack([weights[f"{prefix}{x}.{part}.weight"] for x in range(config["n_routed_experts"])])
            for part in ("gate_proj", "up_proj", "down_proj")
        )
        out |= {prefix + "gate_up_proj": torch.cat([gate, up], 1), prefix + "down_proj": down}
    return out


def unstacked(tensors):
    """The library's names -> checkpoint names."""
    out = {}
    for name, value in tensors.items():
        if not name.endswith((".experts.gate_up_proj", ".experts.down_proj")):
            out[name] = value
            continue
        prefix, kind = name.rsplit(".", 1)
        for x, matrix in enumerate(value):
            if kind == "down_proj":
                out[f"{prefix}.{x}.down_proj.weight"] = matrix.clone()
            else:
                gate, up = matrix.chunk(2)
                out[f"{prefix}.{x}.gate_proj.weight"] = gate.clone()
                out[f"{prefix}.{x}.up_proj.weight"] = up.clone()
    return out


def build(text, weights, dtype):
    """The library's model with eager attention and eager experts, holding `weights` (checkpoint names) in `dtype`."""
    config = library_config(text)
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    raw = json.loads(text)
    kind = DeepseekForCausalLM if raw["model_type"] == "deepseek" else CLASSES[config.model_type][1]
    model = kind(config).to(dtype).train()
    state = {name: value.to(dtype) for name, value in stacked(weights, raw).items()}
    missing, unexpected = model.load_state_dict(state, strict=True)
    if missing or unexpected:
        raise RuntimeError(f"library names differ: missing {missing}, unexpected {unexpected}")
    return model


def gradients_by_checkpoint_name(model):
    return unstacked({name: p.grad for name, p in model.named_parameters()})


def record_routing(model):
    """Hooks that append (indices, weights) [N, A] of every router call to the returned list."""
    calls = []
    for module in model.modules():
        if type(module).__name__.endswith("TopkRouter"):
            module.register_forward_hook(lambda _m, _i, out: calls.append((out[2].detach(), out[1].detach())))
    return calls
