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

function range(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}
