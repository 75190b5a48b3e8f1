/** File formats on the local disk. */

import { diskError } from "./disk-error.ts";
import { nodeFiles } from "./node-files.ts";
import { openTensors, type TensorReader } from "./safetensors-reader.ts";

export { diskError, nodeFiles };

/** Opens a `.safetensors` file, an index, or a folder that holds one of them; see `openTensors`. */
export function openSafetensors(path: string): Promise<TensorReader> {
  return openTensors(nodeFiles, path);
}
