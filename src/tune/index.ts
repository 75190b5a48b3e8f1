/** Tuning: what to change first, with what it is predicted to bring. */

export { SYMPTOMS, type Symptom } from "./action.ts";
export { advise, chosenAdvice, explainAdvice, type Advice, type AdviseInput, type Report } from "./advise.ts";
export { parseMetrics, repeatedShare, type RunMetrics } from "./metrics.ts";
export { findScene, SCENES, type Scene } from "./scenes.ts";
export { harmfulSettings } from "./warnings.ts";
