/** Measuring models on texts: perplexity, and the divergence of one model from another. */

export { evaluateDivergence, type Divergence } from "./divergence.ts";
export { evaluatePerplexity, type Perplexity } from "./perplexity.ts";
export { Scorer, type ScorerOptions } from "./scorer.ts";
export type { EvaluationProgress, EvaluationText } from "./text.ts";
export { resolveWindows, scoredShare, type Window, type WindowOptions, type WindowRule } from "./windows.ts";
