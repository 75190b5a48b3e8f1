import { expect, test } from "vitest";
import { ByteNgram, ngramBitsPerByte } from "./byte-ngram.ts";

const bytes = (text: string): Uint8Array => Buffer.from(text);

/** The formula of the model, on strings and plain maps; "^" is the boundary. */
function plainProbability(corpus: readonly string[], history: string, next: string): number {
  const followers = new Map<string, number>();
  for (const document of corpus) {
    const text = `^${document}`;
    for (let at = 1; at < text.length; at++) {
      if (history.length > at || text.slice(at - history.length, at) !== history) continue;
      followers.set(text[at]!, (followers.get(text[at]!) ?? 0) + 1);
    }
  }
  const shorter = history === "" ? 1 / 256 : plainProbability(corpus, history.slice(1), next);
  if (followers.size === 0) return shorter;
  const total = [...followers.values()].reduce((sum, count) => sum + count, 0);
  return ((followers.get(next) ?? 0) + followers.size * shorter) / (total + followers.size);
}

function plainBits(corpus: readonly string[], document: string, order: number): number {
  const text = `^${document}`;
  let bits = 0;
  for (let at = 1; at < text.length; at++) {
    const history = text.slice(Math.max(0, at - order + 1), at);
    bits -= Math.log2(plainProbability(corpus, history, text[at]!));
  }
  return bits;
}

const CORPUS = ["the cat sat on the mat", "the rat ate the oats", "a cat"];

test.each([1, 2, 3, 5])("an order-%i model gives the probabilities of the formula", (order) => {
  const model = new ByteNgram(order);
  for (const document of CORPUS) model.train(bytes(document));
  for (const document of ["the cat", "a hat on the zebra", "tttt", ""]) {
    expect(model.bits(bytes(document))).toBeCloseTo(plainBits(CORPUS, document, order), 9);
  }
});

test("the probabilities of all 256 bytes sum to 1", () => {
  const model = new ByteNgram(3);
  for (const document of CORPUS) model.train(bytes(document));
  const prefix = model.bits(bytes("the c"));
  let sum = 0;
  for (let byte = 0; byte < 256; byte++) sum += 2 ** (prefix - model.bits(Uint8Array.of(...bytes("the c"), byte)));
  expect(sum).toBeCloseTo(1, 12);
});

test("without training every byte costs eight bits", () => {
  expect(ngramBitsPerByte([], [bytes("any text")])).toBe(8);
});

test("many histories keep their counts while the tables grow", () => {
  const noise = Uint8Array.from({ length: 300_000 }, (_, i) => Math.imul(i ^ (i >>> 7), 0x9e3779b1) >>> 24);
  expect(ngramBitsPerByte([noise], [noise], 3)).toBeLessThan(4);
  expect(ngramBitsPerByte([noise], [noise], 1)).toBeGreaterThan(7.9);
});
