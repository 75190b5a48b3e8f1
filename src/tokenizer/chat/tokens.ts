/** The tokens that chat templates write. The bars are U+FF5C, the gaps U+2581. */

export const BOS = "<｜begin▁of▁sentence｜>";
export const EOS = "<｜end▁of▁sentence｜>";
export const USER = "<｜User｜>";
export const ASSISTANT = "<｜Assistant｜>";
export const THINK = "<think>";
export const END_THINK = "</think>";
export const CALLS_BEGIN = "<｜tool▁calls▁begin｜>";
export const CALLS_END = "<｜tool▁calls▁end｜>";
export const CALL_BEGIN = "<｜tool▁call▁begin｜>";
export const CALL_END = "<｜tool▁call▁end｜>";
export const OUTPUTS_BEGIN = "<｜tool▁outputs▁begin｜>";
export const OUTPUTS_END = "<｜tool▁outputs▁end｜>";
export const OUTPUT_BEGIN = "<｜tool▁output▁begin｜>";
export const OUTPUT_END = "<｜tool▁output▁end｜>";
export const SEP = "<｜tool▁sep｜>";
export const DSML = "｜DSML｜";
export const LATEST_REMINDER = "<｜latest_reminder｜>";
