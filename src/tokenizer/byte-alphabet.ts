/**
 * The byte alphabet of GPT-2: every byte has a visible character, so that any byte string can be written in JSON.
 * Printable Latin-1 bytes are themselves, the others are U+0100 onward.
 */

/** The bytes in the order of their characters, which is the order of the 256 byte tokens in a vocabulary. */
export const ALPHABET_BYTES: readonly number[] = [
  ...range(0x21, 0x7e),
  ...range(0xa1, 0xac),
  ...range(0xae, 0xff),
  ...range(0x00, 0x20),
  ...range(0x7f, 0xa0),
  0xad,
];

const PRINTABLE = 188;

/** The character of each byte. */
export const BYTE_CHARACTERS: readonly string[] = Array.from({ length: 256 }, (_, byte) => {
  const place = ALPHABET_BYTES.indexOf(byte);
  return String.fromCharCode(place < PRINTABLE ? byte : 0x100 + place - PRINTABLE);
});

const BYTE_OF_CHARACTER = new Map(BYTE_CHARACTERS.map((character, byte) => [character, byte]));

/** The bytes that `spelling` stands for; undefined when it holds a character outside the alphabet. */
export function bytesOfSpelling(spelling: string): Uint8Array | undefined {
  const bytes = new Uint8Array(spelling.length);
  for (let i = 0; i < spelling.length; i++) {
    const byte = BYTE_OF_CHARACTER.get(spelling[i]!);
    if (byte === undefined) return undefined;
    bytes[i] = byte;
  }
  return bytes;
}

function range(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}
