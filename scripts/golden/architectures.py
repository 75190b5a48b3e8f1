"""Shapes of the models that the goldens of whole checkpoints are made of, and their weights, which need not be stored.

A weight is a function of seed, name and place: Philox4x32-10 exactly as src/core/rng.ts has it, and uniform numbers
whose rounding is the same in every language. The test makes the same weights.
"""

import math

import numpy as np

MASK = np.uint64(0xFFFFFFFF)


def philox4x32(counter, key):
    """counter: four arrays of 32-bit words as uint64; key: two integers. Four arrays of words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        high0, low0, high1, low1 = p0 >> np.uint64(32), p0 & MASK, p1 >> np.uint64(32), p1 & MASK
        c0, c1, c2, c3 = high1 ^ c1 ^ np.uint64(k0), low1, high0 ^ c3 ^ np.uint64(k1), low0
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def stream_key(seed, stream):
    name = stream.encode()
    padded = name.ljust(max(1, -(-len(name) // 12)) * 12, b"\0")
    key = (seed & 0xFFFFFFFF, seed >> 32)
    for block in np.frombuffer(padded, "<u4").astype(np.uint64).reshape(-1, 3):
        words = [np.array([w], np.uint64) for w in (*block, len(name))]
        key = tuple(int(w[0]) for w in philox4x32(words, key)[:2])
    return key


def words(seed, stream, count):
    """The first `count` words of a stream."""
    index = np.arange(-(-count // 4), dtype=np.uint64)
    zero = np.zeros_like(index)
    blocks = philox4x32((index, zero, zero, zero), stream_key(seed, stream))
    return np.stack(blocks, 1).reshape(-1)[:count]


def uniform(seed, stream, count):
    """In [-1, 1), exact in float64."""
    return words(seed, stream, count).astype(np.float64) / 2**31 - 1


SHARED = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "initializer_range": 0.02,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "torch_dtype": "float32",
    "max_position_embeddings": 128,
    "rope_theta": 10000.0,
    "rope_scaling": None,
}
MOE = SHARED | {"first_k_dense_replace": 1, "moe_layer_freq": 1, "norm_topk_prob": False, "scoring_func": "softmax"}
LLAMA = SHARED | {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "mlp_bias": False}
DEEPSEEK = MOE | {"architectures": ["DeepseekForCausalLM"], "model_type": "deepseek"}
V2 = MOE | {"architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2"}
V3 = MOE | {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "norm_topk_prob": True,
    "num_nextn_predict_layers": 0,
}


def yarn(mscale=None, **more):
    both = {} if mscale is None else {"mscale": mscale, "mscale_all_dim": mscale}
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 32, "beta_slow": 1}
    return {"rope_scaling": scaling | both | more}


def sizes(vocab, dim, layers, heads, inter):
    return {
        "vocab_size": vocab,
        "hidden_size": dim,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "intermediate_size": inter,
    }


def grouped(kv_heads, head_dim):
    return {"num_key_value_heads": kv_heads, "head_dim": head_dim}


def latent(q_lora, kv_lora, nope, rope, v):
    return {
        "q_lora_rank": q_lora,
        "kv_lora_rank": kv_lora,
        "qk_nope_head_dim": nope,
        "qk_rope_head_dim": rope,
        "v_head_dim": v,
    }


def experts(routed, shared, active, inter, scale=1.0):
    return {
        "n_routed_experts": routed,
        "n_shared_experts": shared,
        "num_experts_per_tok": active,
        "moe_intermediate_size": inter,
        "routed_scaling_factor": scale,
    }


def groups(method, count, kept):
    return {"topk_method": method, "n_group": count, "topk_group": kept}


CONFIGS = {
    "llama_mha": LLAMA | sizes(67, 40, 3, 4, 72) | grouped(4, 10),
    "llama_gqa": LLAMA | sizes(80, 48, 3, 6, 80) | grouped(2, 8) | {"rope_theta": 500.0, "rms_norm_eps": 1e-5},
    "llama_gqa_yarn": LLAMA | sizes(71, 42, 3, 6, 67) | grouped(3, 14) | yarn() | {"rope_theta": 500.0},
    "deepseek_mha": DEEPSEEK | sizes(67, 40, 3, 4, 72) | grouped(4, 10) | experts(8, 2, 3, 10),
    "deepseek_16_experts": DEEPSEEK | sizes(73, 34, 3, 2, 57) | grouped(2, 22) | experts(16, 1, 6, 7) | yarn(),
    "deepseek_gqa": DEEPSEEK | sizes(80, 36, 3, 6, 48) | grouped(2, 12) | experts(12, 3, 2, 8, 1.5),
    "v2_greedy": V2
    | sizes(64, 32, 3, 4, 56)
    | latent(None, 16, 8, 8, 12)
    | experts(8, 2, 3, 12, 1.5)
    | groups("greedy", 1, 1)
    | yarn(0.707)
    | {"rope_theta": 500.0},
    "v2_group_limited": V2
    | sizes(80, 32, 3, 2, 48)
    | latent(20, 12, 16, 8, 8)
    | experts(16, 1, 4, 8, 3.0)
    | groups("group_limited_greedy", 4, 2)
    | yarn(0.707, beta_slow=0.25),
    "v2_odd": V2
    | sizes(77, 45, 3, 3, 51)
    | latent(19, 14, 10, 6, 11)
    | experts(9, 2, 3, 7, 2.0)
    | groups("group_limited_greedy", 3, 2),
    "v3_qlora_groups": V3
    | sizes(80, 32, 3, 2, 48)
    | latent(20, 12, 8, 16, 12)
    | experts(16, 1, 5, 8, 2.5)
    | groups("noaux_tc", 4, 2)
    | yarn(1.0)
    | {"rope_interleave": True},
    "v3_qdirect_half": V3
    | sizes(64, 32, 3, 4, 56)
    | latent(None, 16, 8, 8, 8)
    | experts(8, 2, 3, 12, 2.5)
    | groups("noaux_tc", 1, 1)
    | yarn(1.0)
    | {"rope_interleave": False, "rope_theta": 500.0},
    "v3_odd": V3
    | sizes(77, 45, 3, 3, 51)
    | latent(19, 13, 7, 6, 11)
    | experts(12, 1, 4, 6, 1.7)
    | groups("noaux_tc", 3, 2)
    | {"rope_interleave": True},
}


def weight_shapes(c):
    """Hugging Face checkpoint name -> shape, one tensor per expert and projection."""
    d, h = c["hidden_size"], c["num_attention_heads"]
    shapes = {"model.embed_tokens.weight": (c["vocab_size"], d)}

    def mlp(prefix, inner):
        shapes[f"{prefix}.gate_proj.weight"] = shapes[f"{prefix}.up_proj.weight"] = (inner, d)
        shapes[f"{prefix}.down_proj.weight"] = (d, inner)

    def attention(prefix):
        if "kv_lora_rank" not in c:
            width, kv = c["head_dim"], c["num_key_value_heads"]
            shapes[f"{prefix}.q_proj.weight"] = (h * width, d)
            shapes[f"{prefix}.k_proj.weight"] = shapes[f"{prefix}.v_proj.weight"] = (kv * width, d)
            shapes[f"{prefix}.o_proj.weight"] = (d, h * width)
            return
        qk, v, rank = c["qk_nope_head_dim"] + c["qk_rope_head_dim"], c["v_head_dim"], c["kv_lora_rank"]
        if c["q_lora_rank"] is None:
            shapes[f"{prefix}.q_proj.weight"] = (h * qk, d)
        else:
            shapes[f"{prefix}.q_a_proj.weight"] = (c["q_lora_rank"], d)
            shapes[f"{prefix}.q_a_layernorm.weight"] = (c["q_lora_rank"],)
            shapes[f"{prefix}.q_b_proj.weight"] = (h * qk, c["q_lora_rank"])
        shapes[f"{prefix}.kv_a_proj_with_mqa.weight"] = (rank + c["qk_rope_head_dim"], d)
        shapes[f"{prefix}.kv_a_layernorm.weight"] = (rank,)
        shapes[f"{prefix}.kv_b_proj.weight"] = (h * (c["qk_nope_head_dim"] + v), rank)
        shapes[f"{prefix}.o_proj.weight"] = (d, h * v)

    for n in range(c["num_hidden_layers"]):
        layer = f"model.layers.{n}"
        shapes[f"{layer}.input_layernorm.weight"] = shapes[f"{layer}.post_attention_layernorm.weight"] = (d,)
        attention(f"{layer}.self_attn")
        if n < c.get("first_k_dense_replace", c["num_hidden_layers"]):
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


def draw_weight(seed, name, shape):
    """float32. Far larger than a usual initialisation, at which attention and routing are nearly uniform; the embedding
    is small, so that the epsilon of the norms shows."""
    u = uniform(seed, name, math.prod(shape)).reshape(shape)
    if name.endswith("e_score_correction_bias"):
        value = 0.6 * u - 0.2
    elif len(shape) == 1:
        value = 1 + 0.3 * u
    elif name == "model.embed_tokens.weight":
        value = 0.1 * u
    else:
        value = 2.5 / math.sqrt(shape[1]) * u
    return value.astype(np.float32)


def draw_weights(config, seed):
    return {name: draw_weight(seed, name, shape) for name, shape in weight_shapes(config).items()}


def draw_ids(config, seed, stream, count):
    return (words(seed, stream, count) % np.uint64(config["vocab_size"])).astype(np.int64)
