import fc from "fast-check";
import { Tokenizer as HuggingFaceTokenizer } from "tokenizers";
import { expect, test } from "vitest";
import { ALPHABET_BYTES, BYTE_CHARACTERS } from "./byte-alphabet.ts";
import { forEachPiece } from "./pieces.ts";
import { TokenTable } from "./token-table.ts";
import { formatTokenizerJson } from "./tokenizer-json.ts";

function pieces(text: string): string[] {
  const out: string[] = [];
  forEachPiece(text, (piece) => out.push(piece));
  return out;
}

const SPACE = String.raw`\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000`;
const SPLITS = [
  String.raw`\p{N}{1,3}`,
  String.raw`[一-龥\u3040-ゟ゠-ヿ]+`,
  String.raw`[!"#$%&'()*+,\-.\/:;<=>?@\[\\\]^_\`\{\|\}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|[${SPACE}]*[\r\n]+|[${SPACE}]+(?![^${SPACE}])|[${SPACE}]+`,
].map((source) => new RegExp(`(${source.replaceAll("\\`", "`")})`, "u"));

/** The published regular expressions, one after the other, each keeping its matches as pieces of their own. */
function piecesByRegex(text: string): string[] {
  return SPLITS.reduce(
    (parts, split) => parts.flatMap((part) => part.split(split)).filter((part) => part !== ""),
    [text],
  );
}

// Characters that every Unicode version since 15 knows, so that the engine's tables agree with ours.
const characters = fc.constantFrom(
  ...Array.from(
    "aZé你龥龦ーぁ・゠ﾊ〇 \t\n\r19٣½Ⅷ!'\"_<$+^`.。「€^😀🇫‍️́ंः\u0000\u001c\u0085\u00a0\u180e\u200b\u2028\u3000\ufeff\ue000𝒳𠀀𝟘",
  ),
  "\r\n",
  "\n\n",
  "  ",
  "it's",
  "123456",
);

test("the scanner cuts as the three published regular expressions do", () => {
  fc.assert(
    fc.property(fc.array(characters, { maxLength: 40 }), (parts) => {
      const text = parts.join("");
      expect(pieces(text)).toEqual(piecesByRegex(text));
    }),
    { numRuns: 3000, seed: 1 },
  );
});

/** Without merges every byte is a token, and each token knows the number of its piece. */
function byteTokenizer(): HuggingFaceTokenizer {
  const tokens = new TokenTable(ALPHABET_BYTES.length);
  ALPHABET_BYTES.forEach((byte, id) => tokens.spell(id, BYTE_CHARACTERS[byte]!));
  const vocabulary = {
    preTokenizer: "deepseek-v3" as const,
    tokens,
    nModelTokens: tokens.size,
    merges: new Uint32Array(),
    added: [],
    bosId: 0,
    eosId: 0,
    padId: 0,
    addBos: true,
  };
  return HuggingFaceTokenizer.fromString(formatTokenizerJson(vocabulary));
}

/** First code points of blocks of 1024: all but the inner parts of ideographs and Hangul, then one of each plane. */
function* codePointBlocks(): Generator<number> {
  for (let first = 0; first < 0x20000; first += 0x400) {
    const isUniform = (first >= 0x3800 && first < 0x9c00) || (first >= 0xb000 && first < 0xd400);
    if (!isUniform) yield first;
  }
  for (let first = 0x20000; first < 0x110000; first += 0x10000) yield first;
}

test("every kind of code point is cut from its neighbours as Hugging Face tokenizers does", async () => {
  const reference = byteTokenizer();
  for (const first of codePointBlocks()) {
    const codes = Array.from({ length: 0x400 }, (_, i) => first + i).filter((code) => code < 0xd800 || code > 0xdfff);
    const text = codes.map((code) => `a${String.fromCodePoint(code)}a${String.fromCodePoint(code)}\n`).join("");
    const encoding = await reference.encode(text, null, { addSpecialTokens: false });
    const pieceOfByte = pieces(text).flatMap((piece, i) => Array.from({ length: Buffer.byteLength(piece) }, () => i));
    expect(pieceOfByte.join(" "), `from U+${first.toString(16)}`).toBe(encoding.getWordIds().join(" "));
  }
});

test("numbers go in threes from the left, and whitespace before them stays whole", () => {
  expect(pieces("a  12345678")).toEqual(["a", "  ", "123", "456", "78"]);
});

test("a CJK run is cut by its own punctuation and marks only", () => {
  expect(pieces("MoE模型  カー・ス")).toEqual(["MoE", "模型", "  ", "カー", "・", "ス"]);
});

test("one whitespace character is left for the word that follows, newlines stay together", () => {
  expect(pieces("x;\r\n\r\n  y\n \n z")).toEqual(["x", ";\r\n\r\n", " ", " y", "\n \n", " z"]);
});
