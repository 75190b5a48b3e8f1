/** Flags that set a parameter: what they mean and which values are legal is said by the parameter's row alone. */

import { Option } from "commander";
import { findParameter, rowOf } from "../config/index.ts";
import { integer, number } from "./options.ts";

/** @param flags - as commander wants them, for example `--steps <n>`. @param spelling - the parameter, with its section. */
export function settingOption(flags: string, spelling: string): Option {
  const { type, meaning, choices, min = 0, max } = rowOf(findParameter(spelling));
  if (choices !== undefined) return new Option(flags, asHelp(meaning)).choices([...choices]);
  const [name = ""] = flags.split(" ");
  const parse = type === "integer" ? integer(name, min, max) : number(name, min, max);
  return new Option(flags, asHelp(meaning)).argParser(parse);
}

/** The meaning of a parameter as the help of an option that stands for it. @param remark - what the option adds. */
export function helpOf(spelling: string, remark?: string): string {
  const help = asHelp(rowOf(findParameter(spelling)).meaning);
  return remark === undefined ? help : `${help} (${remark})`;
}

/** Help begins small and has no full stop. */
function asHelp(sentence: string): string {
  return `${sentence.charAt(0).toLowerCase()}${sentence.slice(1, -1)}`;
}
