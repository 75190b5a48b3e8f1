/**
 * Flags of the servers and of the demonstration program that a launch script may carry.
 *
 * **Source:** vLLM's `vllm serve` of 0.20.1; SGLang's server arguments of 0.5.11; generate.py and ModelArgs of
 * deepseek-ai/DeepSeek-V3.
 */

export const VLLM_VERSION = "vLLM 0.20.1";

export const VLLM_FLAGS: readonly string[] = [
  "--all2all-backend",
  "--api-server-count",
  "--block-size",
  "--data-parallel-address",
  "--data-parallel-backend",
  "--data-parallel-hybrid-lb",
  "--data-parallel-rpc-port",
  "--data-parallel-size",
  "--data-parallel-size-local",
  "--data-parallel-start-rank",
  "--distributed-executor-backend",
  "--enable-eplb",
  "--enable-expert-parallel",
  "--eplb-config",
  "--gpu-memory-utilization",
  "--headless",
  "--host",
  "--kv-cache-dtype",
  "--kv-transfer-config",
  "--max-model-len",
  "--max-num-batched-tokens",
  "--max-num-seqs",
  "--pipeline-parallel-size",
  "--port",
  "--served-model-name",
  "--speculative-config",
  "--tensor-parallel-size",
  "--trust-remote-code",
];

export const SGLANG_VERSION = "SGLang 0.5.11";

export const SGLANG_FLAGS: readonly string[] = [
  "-m",
  "--attention-backend",
  "--chunked-prefill-size",
  "--context-length",
  "--data-parallel-size",
  "--deepep-mode",
  "--disaggregation-mode",
  "--disaggregation-transfer-backend",
  "--dist-init-addr",
  "--enable-dp-attention",
  "--expert-parallel-size",
  "--host",
  "--kv-cache-dtype",
  "--load-balance-method",
  "--max-running-requests",
  "--max-total-tokens",
  "--mem-fraction-static",
  "--model-path",
  "--moe-a2a-backend",
  "--moe-runner-backend",
  "--nnodes",
  "--node-rank",
  "--page-size",
  "--pipeline-parallel-size",
  "--port",
  "--speculative-algorithm",
  "--speculative-eagle-topk",
  "--speculative-num-draft-tokens",
  "--speculative-num-steps",
  "--tensor-parallel-size",
  "--trust-remote-code",
];

export const DEMO_VERSION = "DeepSeek-V3 inference/ (demonstration)";

export const DEMO_FLAGS: readonly string[] = [
  "--ckpt-path",
  "--config",
  "--input-file",
  "--interactive",
  "--max-new-tokens",
  "--temperature",
];

/** Fields of ModelArgs. */
export const DEMO_FIELDS: readonly string[] = [
  "max_batch_size",
  "max_seq_len",
  "dtype",
  "scale_fmt",
  "vocab_size",
  "dim",
  "inter_dim",
  "moe_inter_dim",
  "n_layers",
  "n_dense_layers",
  "n_heads",
  "n_routed_experts",
  "n_shared_experts",
  "n_activated_experts",
  "n_expert_groups",
  "n_limited_groups",
  "score_func",
  "route_scale",
  "q_lora_rank",
  "kv_lora_rank",
  "qk_nope_head_dim",
  "qk_rope_head_dim",
  "v_head_dim",
  "original_seq_len",
  "rope_theta",
  "rope_factor",
  "beta_fast",
  "beta_slow",
  "mscale",
];
