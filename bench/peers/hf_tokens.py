"""The ids that transformers gives prompts and a conversation with the tokenizer of a folder, without remote code.

    python hf_tokens.py FOLDER QUESTIONS

QUESTIONS is JSON of `texts` and `messages`; the conversation is rendered by the template in the folder. Prints one JSON line
with the answers of AutoTokenizer and of PreTrainedTokenizerFast.
"""

import json
import sys

from transformers import AutoTokenizer, PreTrainedTokenizerFast

folder, questions = sys.argv[1:]
with open(questions) as file:
    asked = json.load(file)
answers = {}
for name, kind in {"AutoTokenizer": AutoTokenizer, "PreTrainedTokenizerFast": PreTrainedTokenizerFast}.items():
    tokenizer = kind.from_pretrained(folder)
    chat = tokenizer.apply_chat_template(asked["messages"], add_generation_prompt=True, tokenize=True, return_dict=False)
    texts = [tokenizer(text)["input_ids"] for text in asked["texts"]]
    answers[name] = {"texts": texts, "chat": chat}
print(json.dumps(answers))
