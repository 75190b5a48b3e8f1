/**
 * The ids that llama.cpp gives the prompts and the conversation of a file, through node-llama-cpp:
 * `node llama_tokens.mjs FOLDER_OF_NODE_MODULES FILE QUESTIONS`, QUESTIONS being JSON of `texts` and `messages`. BOS stands
 * before a text where the file asks for it, as `llama_tokenize` puts it there; the conversation is rendered by the template in
 * the file. Prints one JSON line.
 */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [modules = "", file = "", questions = ""] = process.argv.slice(2);
const entry = createRequire(join(modules, "noop.js")).resolve("node-llama-cpp");
const { getLlama, JinjaTemplateChatWrapper } = await import(pathToFileURL(entry).href);
const { texts, messages } = JSON.parse(readFileSync(questions, "utf8"));
const llama = await getLlama({ gpu: false, build: "never", logLevel: "disabled", maxThreads: 1 });
const model = await llama.loadModel({ modelPath: file, gpuLayers: 0, vocabOnly: true });
const { bos, shouldPrependBosToken: asksForBos } = model.tokens;
const ids = texts.map((/** @type {string} */ text) => [...(asksForBos ? [bos] : []), ...model.tokenize(text, true)]);
const template = model.fileInfo.metadata.tokenizer.chat_template;
const wrapper = new JinjaTemplateChatWrapper({ template, tokenizer: model.tokenizer });
const chatHistory = messages.map((/** @type {{ role: string, content: string }} */ { role, content }) =>
  role === "assistant" ? { type: "model", response: [content] } : { type: role, text: content },
);
const { contextText } = wrapper.generateContextState({
  chatHistory: [...chatHistory, { type: "model", response: [] }],
});
console.log(JSON.stringify({ asksForBos, texts: ids, chat: contextText.tokenize(model.tokenizer) }));
process.exit(0);
