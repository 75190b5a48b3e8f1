/** Inference: the cache, the sampler, the engine. */

export {
  Engine,
  type EngineOptions,
  type FinishReason,
  type GemmImpl,
  type GenerationEnd,
  type Piece,
} from "./engine.ts";
export { sample } from "./sampler.ts";
