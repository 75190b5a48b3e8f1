/** Optimizers and learning-rate schedules. */

export { AdamW, type Moments } from "./adamw.ts";
export { clipScale } from "./clip.ts";
export { learningRate } from "./schedule.ts";
