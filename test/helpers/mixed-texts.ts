/** Texts of all kinds side by side, for comparing tokenizers. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Rng } from "../../src/core/index.ts";

const ROOT = new URL("../../", import.meta.url).pathname;

/** Documents of the repository: English and code. */
function ownTexts(): string[] {
  const list = (folder: string, end: string): string[] =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(end))
      .map((name) => join(ROOT, folder, name));
  const files = [join(ROOT, "README.md"), ...list("docs", ".md"), ...list("src", ".ts"), ...list("native", ".rs")];
  return files.filter((file) => !file.includes("/target/")).map((file) => readFileSync(file, "utf8"));
}

const CHINESE = "混合专家模型把每个词元送到少数专家，共享专家总是工作。注意力只缓存一个潜在向量；训练时负载要均衡！";
const RARE = [
  "😀", "👩‍👩‍👧‍👦", "🇫🇷", "e\u0301\u0323", "क्षि", "ﷺ", "𝒳", "カー・ス", "한국어", "ключ", "\u0000", "\u001b[0m", "\u0007",
  "\ufeff", "\u0085", "\u00a0", "\u2028", "\u3000", "\r\n", "\t\t", "   ", "\n\n\n", "½", "٣٤", "Ⅷ", "…", "￥", "<｜", "｜>",
  "<｜User｜>", "<｜end▁of▁sentence｜>", "<｜tool▁calls▁begin｜>", "<|EOT|>", "<｜place▁holder▁no▁17｜>", "<｜User",
]; // prettier-ignore

/** Documents of some 8 KB in which all kinds of text stand side by side. */
export function* mixedTexts(bytes: number): Generator<string> {
  const rng = new Rng(7, "mixed text");
  const below = (n: number): number => Math.floor(rng.uniform() * n);
  const own = ownTexts();
  const excerpt = (text: string, length: number): string => {
    const start = below(Math.max(1, text.length - length));
    return text.slice(start, start + length).replaceAll(/^[\udc00-\udfff]|[\ud800-\udbff]$/g, "");
  };
  const kinds: (() => string)[] = [
    () => excerpt(own[below(own.length)]!, 1 + below(600)),
    () => excerpt(CHINESE, 1 + below(40)),
    () => Array.from({ length: 1 + below(30) }, () => String.fromCodePoint(0x4e00 + below(0x5200))).join(""),
    () => RARE[below(RARE.length)]!.repeat(1 + below(4)),
    () => Array.from({ length: 1 + below(60) }, () => below(10)).join(""),
    () => String.fromCodePoint(below(0xd800), 0xe000 + below(0x2000), 0x1_0000 + below(0xf_0000)),
  ];
  for (let made = 0; made < bytes;) {
    let text = "";
    while (text.length < 6000) text += kinds[below(kinds.length)]!();
    made += Buffer.byteLength(text);
    yield text;
  }
}
