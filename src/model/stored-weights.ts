/**
 * The weights of a model as a checkpoint holds them: matrices stay in their stored type, over windows of the mapped file
 * where the backend can map and the place is aligned, copied byte for byte elsewhere. Vectors are f32.
 */

import { bytesOf, DTYPES, type DType } from "../core/dtype.ts";
import { FormatError, invariant } from "../core/errors.ts";
import { dtypeOfBlocks, isBlockType } from "../core/index.ts";
import type { OpenTensors, StoredTensor } from "../formats/index.ts";
import type { Handle, Operand } from "../kernels/index.ts";
import { Parameter, sizeOf, Storage, StoredMatrix, Tensor, type Scope, type StoredScale } from "../tensor/index.ts";
import type { ModelWeights, SplitHeads } from "./model-weights.ts";
import { partsOf, type Place, type Places, type StoredPart } from "./places.ts";
import { isScaled, scaleOf, type ScalePart } from "./stored-scale.ts";
import { readRaw, readVector } from "./stored-values.ts";

type Open = OpenTensors<StoredTensor>;

/**
 * What the weights at these places will take: matrices as many bytes as in the file, vectors and scales 4 a value, lists
 * of experts 8 an entry.
 */
export function storedBytes(places: Places, { tensors }: Open): number {
  let bytes = 0;
  for (const place of places.values()) {
    for (const part of partsOf(place)) {
      bytes += partBytes(part, tensors);
      if (place.kind === "experts") bytes += bytesOf(HANDLES, isScaled(part.tensor.dtype) ? 2 : 1);
    }
  }
  return bytes;
}

/** The type of lists of handles. */
const HANDLES: DType = "f64";

function partBytes(part: StoredPart, tensors: Open["tensors"]): number {
  const size = sizeOf(part.shape);
  if (part.shape.length === 1) return bytesOf("f32", size);
  const scale = isScaled(part.tensor.dtype) ? sizeOf(heldScale(scaleOf(part, tensors), part.shape[0]!).shape) : 0;
  return bytesOf(typeOf(part), size) + bytesOf("f32", scale);
}

/** Scales of a matrix as they are held: for blocks so low that none begins above it. */
function heldScale({ part, rows, skip }: ScalePart, matrixRows: number): { shape: readonly number[]; rows: number } {
  const low = greatestDivisor(rows, skip);
  return { shape: [Math.ceil(matrixRows / low), part.shape[1]!], rows: low };
}

/** The element type of a stored tensor whose type has been checked. */
function typeOf({ tensor: { dtype } }: StoredPart): DType {
  if (isBlockType(dtype)) return dtypeOfBlocks(dtype);
  return dtype === "I8" ? "i8" : "f8_e4m3";
}

/**
 * Weights whose memory belongs to `scope`; the file may be closed once they are there, and must not change while they
 * live.
 *
 * @throws FormatError when scales are missing, experts of one layer are of several types, or the file has become shorter.
 */
export async function mapWeights(scope: Scope, open: Open, places: Places): Promise<ModelWeights> {
  const loader = new Loader(scope, open);
  const held = new Map<string, Held>();
  for (const [name, place] of places) held.set(name, await loader.load(name, place));
  const get = <T extends Held>(name: string, isKind: (found: Held) => found is T): T => {
    const found = held.get(name);
    invariant(found !== undefined && isKind(found), `the checkpoint holds ${name} as the model needs it`);
    return found;
  };
  return {
    bytes: storedBytes(places, open),
    vector: (name) => get(name, (found) => found instanceof Parameter),
    matrix: (name) => get(name, (found) => found instanceof StoredMatrix),
    heads: (name) => get(name, (found): found is StoredMatrix | SplitHeads => !(found instanceof Parameter)),
  };
}

type Held = Parameter | StoredMatrix | SplitHeads;

class Loader {
  readonly #scope: Scope;
  readonly #open: Open;

  constructor(scope: Scope, open: Open) {
    this.#scope = scope;
    this.#open = open;
  }

  async load(name: string, place: Place): Promise<Held> {
    switch (place.kind) {
      case "whole":
        return place.part.shape.length === 1
          ? new Parameter(name, await this.#f32(place.part), false)
          : this.#matrix(place.part);
      case "experts":
        return this.#experts(name, place.parts);
      case "heads":
        return { keys: await this.#matrix(place.keys), values: await this.#matrix(place.values) };
      default:
        return place satisfies never;
    }
  }

  async #matrix(part: StoredPart): Promise<StoredMatrix> {
    const weight = await this.#asStored(part, typeOf(part));
    const scale = isScaled(part.tensor.dtype) ? await this.#scale(part) : null;
    return new StoredMatrix(part.name, part.shape, { weight, scale });
  }

  /** One matrix a part, given to kernels as the list of their handles. */
  async #experts(name: string, parts: readonly StoredPart[]): Promise<StoredMatrix> {
    const matrices: StoredMatrix[] = [];
    for (const part of parts) {
      checkSameType(parts[0]!, part);
      matrices.push(await this.#matrix(part));
    }
    const [{ shape, weight, scale }] = matrices as [StoredMatrix];
    const list = this.#list(matrices.map((matrix) => matrix.weight));
    const scales = matrices.flatMap((matrix) => matrix.scale?.values ?? []);
    return new StoredMatrix(name, [matrices.length, ...shape], {
      weight: { handle: list.handle, offset: 0, dtype: weight.dtype },
      scale:
        scale === null ? null : { ...scale, values: { handle: this.#list(scales).handle, offset: 0, dtype: "f32" } },
      isList: true,
    });
  }

  #list(operands: readonly Operand[]): Tensor {
    const handles = operands.map(({ handle }) => handle);
    return this.#scope.from(handles, [handles.length], HANDLES);
  }

  async #scale(weight: StoredPart): Promise<StoredScale> {
    const scale = scaleOf(weight, this.#open.tensors);
    const { part, rows, columns: cols, skip } = scale;
    return skip === 0 ? { values: await this.#f32(part), rows, cols } : this.#shiftedScale(scale, weight.shape[0]!);
  }

  /** Scales of blocks that begin above the matrix, repeated for blocks so low that none does. */
  async #shiftedScale(scale: ScalePart, matrixRows: number): Promise<StoredScale> {
    const { part, rows, columns: cols, skip } = scale;
    const all = await readVector(this.#open, part);
    const held = heldScale(scale, matrixRows);
    const width = part.shape[1]!;
    const values = Float32Array.from({ length: sizeOf(held.shape) }, (_, i) => {
      const row = Math.floor((skip + Math.floor(i / width) * held.rows) / rows);
      return all[row * width + (i % width)]!;
    });
    return { values: this.#scope.from(values, held.shape, "f32"), rows: held.rows, cols };
  }

  /** In f32 whatever the stored type; as it stands where that is f32. */
  async #f32(part: StoredPart): Promise<Tensor> {
    if (part.tensor.dtype === "F32") return this.#asStored(part, "f32");
    return this.#scope.from(await readVector(this.#open, part), part.shape, "f32");
  }

  async #asStored(part: StoredPart, dtype: DType): Promise<Tensor> {
    const { name, shape } = part;
    const bytes = bytesOf(dtype, sizeOf(shape));
    const handle = this.#map(part, dtype, bytes);
    if (handle !== undefined) {
      return this.#scope.own(new Tensor(new Storage(this.#scope.backend, bytes, name, handle), shape, dtype));
    }
    const copy = this.#scope.empty(shape, dtype, name);
    await readRaw(this.#open, part, copy);
    return copy;
  }

  /** A window of the file; undefined where the backend maps none, or values would not lie at a whole place of theirs. */
  #map({ tensor, at }: StoredPart, dtype: DType, bytes: number): Handle | undefined {
    const { backend } = this.#scope;
    const offset = tensor.offset + bytesOf(dtype, at);
    const { blockElements, blockBytes } = DTYPES[dtype];
    if (backend.mapFile === undefined || (blockElements === 1 && offset % blockBytes !== 0)) return undefined;
    return backend.mapFile(tensor.file, offset, bytes);
  }
}

function checkSameType(first: StoredPart, { name, tensor }: StoredPart): void {
  if (tensor.dtype === first.tensor.dtype) return;
  const rule = `must hold all experts of a layer in one type, ${first.tensor.dtype} as ${first.name}`;
  throw new FormatError(tensor.file, rule, { got: `${name} in ${tensor.dtype}` });
}

function greatestDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestDivisor(b, a % b);
}
