/** What every checkpoint format says about one tensor, whatever its element type is called there. */

export interface StoredTensor {
  /** Element or block type in the spelling of the format: `BF16`, `F8_E4M3`, `Q4_K`. */
  readonly dtype: string;
  /** Outermost axis first; matrices are [out, in]. */
  readonly shape: readonly number[];
  /** First byte, counted from the start of the file. */
  readonly offset: number;
  /** Bytes of the payload, without padding. */
  readonly bytes: number;
  /** Path of the file that holds it. */
  readonly file: string;
}
