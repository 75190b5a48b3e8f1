/** File formats on the local disk. */

import { openGgufTensors, type GgufReader } from "./gguf-reader.ts";
import { diskError } from "./disk-error.ts";
import { nodeFiles } from "./node-files.ts";
import { openTensors, type TensorReader } from "./safetensors-reader.ts";

export { diskError, nodeFiles };

/** Opens a `.safetensors` file, an index, or a folder that holds one of them; see `openTensors`. */
export function openSafetensors(path: string): Promise<TensorReader> {
  return openTensors(nodeFiles, path);
}

/** Opens a `.gguf` file, or all parts of a split one; see `openGgufTensors`. */
export function openGguf(path: string): Promise<GgufReader> {
  return openGgufTensors(nodeFiles, path);
}
