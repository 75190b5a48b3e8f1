"""The model shapes of the golden files, as published-style Hugging Face configurations, and their weights.

Each pair of {with or without q_lora} x {1 or 4 groups} x {interleaved or half-split rotary pairs} occurs in one of the
four V3 shapes. Dimensions are unequal on purpose, so that a transposed or wrongly split matrix cannot pass.
"""

import json
import zlib

import numpy as np

ORIGINAL_LEN = 32
FACTOR = 4.0
BATCH = 2
SEQ_LEN = 96


def yarn(theta, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0):
    return {
        "rope_theta": theta,
        "max_position_embeddings": int(ORIGINAL_LEN * FACTOR),
        "rope_scaling": {
            "type": "yarn",
            "factor": FACTOR,
            "original_max_position_embeddings": ORIGINAL_LEN,
            "beta_fast": beta_fast,
            "beta_slow": beta_slow,
            "mscale": mscale,
            "mscale_all_dim": mscale_all_dim,
        },
    }


SHARED = {
    "hidden_size": 32,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "initializer_range": 0.02,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "torch_dtype": "float32",
}

V2 = SHARED | {
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "scoring_func": "softmax",
    "norm_topk_prob": False,
}

V3 = SHARED | {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "num_nextn_predict_layers": 0,
}


def sizes(vocab, layers, heads, q_lora, kv_lora, nope, rope, v):
    return {
        "vocab_size": vocab,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "q_lora_rank": q_lora,
        "kv_lora_rank": kv_lora,
        "qk_nope_head_dim": nope,
        "qk_rope_head_dim": rope,
        "v_head_dim": v,
    }


def experts(inter, moe_inter, routed, shared, active, groups, kept):
    return {
        "intermediate_size": inter,
        "moe_intermediate_size": moe_inter,
        "n_routed_experts": routed,
        "n_shared_experts": shared,
        "num_experts_per_tok": active,
        "n_group": groups,
        "topk_group": kept,
    }


# name -> (configuration, clip: global-norm limit of the ten steps or None, index of an expert that no token may choose)
VARIANTS = {
    "deepseek_v2_greedy": (
        V2
        | sizes(vocab=64, layers=3, heads=4, q_lora=None, kv_lora=16, nope=8, rope=8, v=12)
        | experts(inter=56, moe_inter=16, routed=8, shared=2, active=3, groups=1, kept=1)
        | yarn(theta=500.0, mscale=0.707, mscale_all_dim=0.707)
        | {"topk_method": "greedy", "routed_scaling_factor": 1.5},
        None,
        None,
    ),
    "deepseek_v2_group_limited": (
        V2
        | sizes(vocab=80, layers=3, heads=2, q_lora=20, kv_lora=12, nope=16, rope=8, v=8)
        | experts(inter=48, moe_inter=16, routed=8, shared=1, active=3, groups=4, kept=2)
        | yarn(theta=10000.0, beta_slow=0.25, mscale=0.707, mscale_all_dim=0.707)
        | {"topk_method": "group_limited_greedy", "routed_scaling_factor": 3.0},
        1.0,
        None,
    ),
    "deepseek_v3_qlora_4groups": (
        V3
        | sizes(vocab=80, layers=3, heads=2, q_lora=20, kv_lora=12, nope=8, rope=16, v=12)
        | experts(inter=48, moe_inter=16, routed=8, shared=1, active=3, groups=4, kept=2)
        | yarn(theta=10000.0)
        | {"rope_interleave": True},
        1.0,
        None,
    ),
    "deepseek_v3_qdirect_1group": (
        V3
        | sizes(vocab=64, layers=3, heads=4, q_lora=None, kv_lora=16, nope=8, rope=8, v=8)
        | experts(inter=56, moe_inter=12, routed=8, shared=2, active=2, groups=1, kept=1)
        | yarn(theta=500.0)
        | {"rope_interleave": True},
        None,
        None,
    ),
    "deepseek_v3_qlora_1group_half": (
        V3
        | sizes(vocab=64, layers=3, heads=4, q_lora=24, kv_lora=16, nope=8, rope=8, v=8)
        | experts(inter=40, moe_inter=12, routed=8, shared=1, active=3, groups=1, kept=1)
        | yarn(theta=500.0, mscale=1.0, mscale_all_dim=0.8)
        | {"rope_interleave": False},
        None,
        5,
    ),
    "deepseek_v3_qdirect_4groups_half": (
        V3
        | sizes(vocab=64, layers=2, heads=2, q_lora=None, kv_lora=16, nope=16, rope=8, v=8)
        | experts(inter=48, moe_inter=16, routed=16, shared=1, active=6, groups=4, kept=2)
        | yarn(theta=500.0, beta_fast=8)
        | {"rope_interleave": False},
        1.0,
        None,
    ),
}


def config_text(config):
    """The text of `config.json`."""
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def weight_shapes(c):
    """Hugging Face checkpoint name -> shape, one tensor per expert and projection."""
    d, h = c["hidden_size"], c["num_attention_heads"]
    qk = c["qk_nope_head_dim"] + c["qk_rope_head_dim"]
    shapes = {"model.embed_tokens.weight": (c["vocab_size"], d)}

    def mlp(prefix, inner):
        shapes[f"{prefix}.gate_proj.weight"] = shapes[f"{prefix}.up_proj.weight"] = (inner, d)
        shapes[f"{prefix}.down_proj.weight"] = (d, inner)

    for n in range(c["num_hidden_layers"]):
        layer = f"model.layers.{n}"
        attn = f"{layer}.self_attn"
        shapes[f"{layer}.input_layernorm.weight"] = (d,)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (d,)
        if c["q_lora_rank"] is None:
            shapes[f"{attn}.q_proj.weight"] = (h * qk, d)
        else:
            shapes[f"{attn}.q_a_proj.weight"] = (c["q_lora_rank"], d)
            shapes[f"{attn}.q_a_layernorm.weight"] = (c["q_lora_rank"],)
            shapes[f"{attn}.q_b_proj.weight"] = (h * qk, c["q_lora_rank"])
        shapes[f"{attn}.kv_a_proj_with_mqa.weight"] = (c["kv_lora_rank"] + c["qk_rope_head_dim"], d)
        shapes[f"{attn}.kv_a_layernorm.weight"] = (c["kv_lora_rank"],)
        shapes[f"{attn}.kv_b_proj.weight"] = (h * (c["qk_nope_head_dim"] + c["v_head_dim"]), c["kv_lora_rank"])
        shapes[f"{attn}.o_proj.weight"] = (d, h * c["v_head_dim"])
        if n < c["first_k_dense_replace"]:
            mlp(f"{layer}.mlp", c["intermediate_size"])
            continue
        shapes[f"{layer}.mlp.gate.weight"] = (c["n_routed_experts"], d)
        if c["model_type"] == "deepseek_v3":
            shapes[f"{layer}.mlp.gate.e_score_correction_bias"] = (c["n_routed_experts"],)
        for x in range(c["n_routed_experts"]):
            mlp(f"{layer}.mlp.experts.{x}", c["moe_intermediate_size"])
        mlp(f"{layer}.mlp.shared_experts", c["n_shared_experts"] * c["moe_intermediate_size"])
    shapes["model.norm.weight"] = (d,)
    shapes["lm_head.weight"] = (c["vocab_size"], d)
    return shapes


def draw_weights(config, seed, starved):
    """name -> float32 array, each tensor from its own stream of (seed, name).

    Much larger than a usual initialisation (0.02): at that size attention and routing are nearly uniform and faults
    do not show. The router bias has both signs; with groups it is low enough that negative selection scores get chosen.
    """
    weights = {}
    for name, shape in weight_shapes(config).items():
        noise = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape)
        if name.endswith("e_score_correction_bias"):
            value = 0.2 * noise if config["n_group"] == 1 else 0.3 * noise - 0.5
            if starved is not None:
                value[starved] = -3.0
        elif len(shape) == 1:
            value = 1 + 0.2 * noise
        elif name.endswith("mlp.gate.weight"):
            value = 0.3 * noise
        elif name == "model.embed_tokens.weight":
            value = noise
        else:
            value = noise / np.sqrt(shape[1])
        weights[name] = value.astype(np.float32)
    return weights


def draw_tokens(config, seed):
    """[BATCH, SEQ_LEN] int32 token ids."""
    return np.random.default_rng([seed, 1]).integers(0, config["vocab_size"], (BATCH, SEQ_LEN), dtype=np.int32)
