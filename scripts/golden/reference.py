"""A second, plain float64 model: every formula written out, no library code, experts computed densely.

`faults` names rules to break on purpose; the maker uses them to show that a golden file notices each of them.
"""

import math

import torch

FAULTS_V2 = ("no_yarn", "no_mscale", "rope_layout", "no_route_scale", "normalised")
FAULTS_V2_GROUPS = ("no_groups", "group_sum")
FAULTS_V3 = ("no_yarn", "no_mscale", "rope_layout", "no_route_scale", "not_normalised", "no_bias", "biased_weights")
FAULTS_V3_GROUPS = ("no_groups", "group_max", "zero_mask")


def faults_of(c):
    """The faults that can show in a model of configuration `c`."""
    v3, grouped = c["model_type"] == "deepseek_v3", c["n_group"] > 1
    if v3:
        return FAULTS_V3 + (FAULTS_V3_GROUPS if grouped else ())
    return FAULTS_V2 + (FAULTS_V2_GROUPS if grouped else ())


def checkpoint_faults(c):
    """The faults that can show in a model of any architecture, YaRN or not."""
    names = ["eps"] if c["rms_norm_eps"] < 1e-5 else []
    if c.get("rope_scaling"):
        names += ["no_yarn"] + (["no_mscale"] if c["rope_scaling"].get("mscale_all_dim") else [])
    names += ["rope_layout"]
    if "kv_lora_rank" in c:
        names += ["wide_kv_norm"]
    if "n_routed_experts" not in c:
        return names
    if c["routed_scaling_factor"] != 1:
        names += ["no_route_scale"]
    grouped = c.get("n_group", 1) > 1
    if c["model_type"] == "deepseek_v3":
        return names + ["not_normalised", "no_bias", "biased_weights"] + (["group_max", "zero_mask"] if grouped else [])
    return names + ["normalised"] + (["group_sum"] if grouped else [])


def mscale(factor, m):
    return 0.1 * m * math.log(factor) + 1 if factor > 1 else 1.0


def rope_frequencies(c, faults=()):
    """[rope/2] angle per position: high frequencies as they are, low ones divided by the factor, a ramp between."""
    r, theta, s = c.get("qk_rope_head_dim", c.get("head_dim")), c["rope_theta"], c["rope_scaling"]
    if s is None:
        return torch.tensor([theta ** (-2 * i / r) for i in range(r // 2)], dtype=torch.float64)

    def dim_of(rotations):
        return r * math.log(s["original_max_position_embeddings"] / (2 * math.pi * rotations)) / (2 * math.log(theta))

    low = max(math.floor(dim_of(s["beta_fast"])), 0)
    high = min(math.ceil(dim_of(s["beta_slow"])), r - 1)
    high = high + 0.001 if low == high else high
    frequencies = []
    for i in range(r // 2):
        base = theta ** (-2 * i / r)
        ramp = 0.0 if "no_yarn" in faults else min(max((i - low) / (high - low), 0.0), 1.0)
        frequencies.append(base / s["factor"] * ramp + base * (1 - ramp))
    return torch.tensor(frequencies, dtype=torch.float64)


def rotate(x, c, faults):
    """x [..., T, rope], rotated by its position; pairs (2i, 2i+1), or (i, i + rope/2) without interleaving."""
    interleaved = c.get("rope_interleave", "kv_lora_rank" in c) != ("rope_layout" in faults)
    angle = torch.arange(x.shape[-2], dtype=torch.float64)[:, None] * rope_frequencies(c, faults)
    gain = rope_gain(c)
    turn = torch.polar(torch.full_like(angle, gain), angle)
    half = x.shape[-1] // 2
    a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    y = torch.complex(a, b) * turn
    return torch.stack([y.real, y.imag], -1).flatten(-2) if interleaved else torch.cat([y.real, y.imag], -1)


def rope_gain(c):
    """The factor on cosines and sines; without both keys of mscale that of YaRN's paper."""
    s = c["rope_scaling"]
    if s is None:
        return 1.0
    if not s.get("mscale") or not s.get("mscale_all_dim"):
        return mscale(s["factor"], 1)
    return mscale(s["factor"], s["mscale"]) / mscale(s["factor"], s["mscale_all_dim"])


def softmax_scale(c, faults=()):
    s = c["rope_scaling"] or {}
    plain = "no_mscale" in faults or not s.get("mscale_all_dim")
    f = 1.0 if plain else mscale(s["factor"], s["mscale_all_dim"])
    return (c["qk_nope_head_dim"] + c["qk_rope_head_dim"]) ** -0.5 * f * f


def rms_norm(x, weight, eps):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def grouped_attention(x, w, c, faults):
    """LLaMA's attention: each head of keys and values serves neighbouring heads of queries. x [B, T, D]."""
    h, g, t = c["num_attention_heads"], c["num_key_value_heads"], x.shape[1]
    q = (x @ w["q_proj.weight"].T).chunk(h, -1)
    k, v = (x @ w["k_proj.weight"].T).chunk(g, -1), (x @ w["v_proj.weight"].T).chunk(g, -1)
    hidden = torch.ones(t, t, dtype=torch.bool).triu(1)
    heads = []
    for i in range(h):
        scores = rotate(q[i], c, faults) @ rotate(k[i * g // h], c, faults).mT * c["head_dim"] ** -0.5
        heads.append(scores.masked_fill(hidden, -math.inf).softmax(-1) @ v[i * g // h])
    return torch.cat(heads, -1) @ w["o_proj.weight"].T


def attention(x, w, c, faults):
    """Multi-head latent attention in its expanded form. x [B, T, D]."""
    if "kv_lora_rank" not in c:
        return grouped_attention(x, w, c, faults)
    h, nope, rope, kv = c["num_attention_heads"], c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["kv_lora_rank"]
    t, eps = x.shape[1], 1e-6
    if c["q_lora_rank"] is None:
        q = x @ w["q_proj.weight"].T
    else:
        q = rms_norm(x @ w["q_a_proj.weight"].T, w["q_a_layernorm.weight"], eps) @ w["q_b_proj.weight"].T
    latent = x @ w["kv_a_proj_with_mqa.weight"].T
    key_rope = rotate(latent[..., kv:], c, faults)
    normed = rms_norm(latent[..., :kv], w["kv_a_layernorm.weight"], eps)
    if "wide_kv_norm" in faults:
        normed = rms_norm(latent, torch.ones(latent.shape[-1]).double(), eps)[..., :kv] * w["kv_a_layernorm.weight"]
    expanded = normed @ w["kv_b_proj.weight"].T
    hidden = torch.ones(t, t, dtype=torch.bool).triu(1)
    heads = []
    for q_head, kv_head in zip(q.chunk(h, -1), expanded.chunk(h, -1), strict=True):
        scores = q_head[..., :nope] @ kv_head[..., :nope].mT + rotate(q_head[..., nope:], c, faults) @ key_rope.mT
        weights = (scores * softmax_scale(c, faults)).masked_fill(hidden, -math.inf).softmax(-1)
        heads.append(weights @ kv_head[..., nope:])
    return torch.cat(heads, -1) @ w["o_proj.weight"].T


def swiglu(x, w, prefix):
    gate = x @ w[prefix + "gate_proj.weight"].T
    return (gate * torch.sigmoid(gate) * (x @ w[prefix + "up_proj.weight"].T)) @ w[prefix + "down_proj.weight"].T


def choose(scores, k):
    """Indices of the k largest in the last dimension, and the smallest gap between a chosen and a refused one.

    Scores of minus infinity are not candidates.
    """
    ranked, order = scores.sort(dim=-1, descending=True, stable=True)
    if k == scores.shape[-1]:
        return order, math.inf
    return order[..., :k], (ranked[..., k - 1] - ranked[..., k]).min().item()


def kept_by_groups(selection, c, faults):
    """[N, E] bool: the experts of the groups that stay, and the smallest gap between a kept and a refused group."""
    groups = selection.unflatten(-1, (c["n_group"], -1))
    use_max = (c["model_type"] == "deepseek_v2" or "group_max" in faults) and "group_sum" not in faults
    group_scores = groups.amax(-1) if use_max else groups.sort(dim=-1, descending=True).values[..., :2].sum(-1)
    chosen, gap = choose(group_scores, c["topk_group"])
    kept = torch.zeros_like(group_scores, dtype=torch.bool).scatter(-1, chosen, True)
    return kept.repeat_interleave(groups.shape[-1], -1), gap


def route(x, w, c, faults):
    """x [N, D] -> chosen experts [N, A], their weights [N, A], smallest gap of groups and of experts."""
    v3 = c["model_type"] == "deepseek_v3"
    logits = x @ w["gate.weight"].T
    scores = torch.sigmoid(logits) if v3 else logits.softmax(-1)
    selection = scores.detach()
    if v3 and "no_bias" not in faults:
        selection = selection + w["gate.e_score_correction_bias"]
    biased, group_gap = selection, math.inf
    if c.get("n_group", 1) > 1 and "no_groups" not in faults:
        kept, group_gap = kept_by_groups(selection, c, faults)
        selection = selection.masked_fill(~kept, 0.0 if "zero_mask" in faults else -math.inf)
    chosen, expert_gap = choose(selection, c["num_experts_per_tok"])
    weights = (biased if "biased_weights" in faults else scores).gather(-1, chosen)
    normalise = (c["norm_topk_prob"] and "not_normalised" not in faults) or "normalised" in faults
    if normalise:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    if "no_route_scale" not in faults:
        weights = weights * c["routed_scaling_factor"]
    return chosen, weights, min(group_gap, expert_gap)


def mixture(x, w, c, faults, trace):
    flat = x.flatten(0, 1)
    chosen, weights, gap = route(flat, w, c, faults)
    trace.append({"indices": chosen, "weights": weights.detach(), "gap": gap})
    share = torch.zeros(flat.shape[0], c["n_routed_experts"], dtype=torch.float64).scatter(1, chosen, weights)
    out = swiglu(flat, w, "shared_experts.")
    for e in range(c["n_routed_experts"]):
        out = out + share[:, e : e + 1] * swiglu(flat, w, f"experts.{e}.")
    return out.view_as(x)


def under(weights, prefix):
    return {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}


def forward(weights, c, tokens, faults=()):
    """Logits [B, T, V] and one trace entry (indices, weights, gap) per expert layer."""
    eps, trace = 1e-5 if "eps" in faults else c["rms_norm_eps"], []
    x = weights["model.embed_tokens.weight"][tokens]
    for n in range(c["num_hidden_layers"]):
        w = under(weights, f"model.layers.{n}.")
        x = x + attention(rms_norm(x, w["input_layernorm.weight"], eps), under(w, "self_attn."), c, faults)
        y = rms_norm(x, w["post_attention_layernorm.weight"], eps)
        if n < c.get("first_k_dense_replace", c["num_hidden_layers"]):
            x = x + swiglu(y, w, "mlp.")
        else:
            x = x + mixture(y, under(w, "mlp."), c, faults, trace)
    return rms_norm(x, weights["model.norm.weight"], eps) @ weights["lm_head.weight"].T, trace


def cross_entropy(logits, tokens):
    """Mean nats over the T - 1 next-token targets of each row."""
    log_p = logits[:, :-1].log_softmax(-1)
    return -log_p.gather(-1, tokens[:, 1:, None]).mean()


class AdamW:
    """Decoupled weight decay on matrices only, bias-corrected moments, optional clipping of the global norm."""

    def __init__(self, parameters, lr, betas, eps, weight_decay, clip):
        self.parameters, self.lr, self.betas, self.eps = parameters, lr, betas, eps
        self.weight_decay, self.clip, self.step_number = weight_decay, clip, 0
        self.first = {name: torch.zeros_like(p) for name, p in parameters.items()}
        self.second = {name: torch.zeros_like(p) for name, p in parameters.items()}

    @torch.no_grad()
    def step(self, gradients):
        self.step_number += 1
        norm = math.sqrt(sum((g * g).sum().item() for g in gradients.values()))
        shrink = 1.0 if self.clip is None else min(1.0, self.clip / (norm + 1e-6))
        b1, b2 = self.betas
        for name, p in self.parameters.items():
            g, m, v = gradients[name] * shrink, self.first[name], self.second[name]
            m.mul_(b1).add_((1 - b1) * g)
            v.mul_(b2).add_((1 - b2) * g * g)
            m_hat, v_hat = m / (1 - b1**self.step_number), v / (1 - b2**self.step_number)
            decay = self.weight_decay if p.ndim > 1 else 0.0
            p.sub_(self.lr * (m_hat / (v_hat.sqrt() + self.eps) + decay * p))
