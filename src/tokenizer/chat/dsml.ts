/**
 * Tool calls in DSML, the markup of V3.2 and V4: `<｜DSML｜invoke name="…">` with a tag for each parameter. Only `｜DSML｜` is
 * a token.
 *
 * **Source:** `encoding/` of DeepSeek-V3.2 and DeepSeek-V4-Flash.
 */
import { ConfigError } from "../../core/errors.ts";
import type { Rendering, ToolCall, ToolFunction } from "./message.ts";
import { pythonJson } from "./python-json.ts";
import { DSML, END_THINK, THINK } from "./tokens.ts";

/** The name of the block that holds the calls: `function_calls` in V3.2, `tool_calls` in V4. */
type Block = "function_calls" | "tool_calls";

/** Writes two newlines and a closed block of calls; nothing for no calls. */
export function writeCalls(out: Rendering, block: Block, calls: readonly ToolCall[]): void {
  if (calls.length === 0) return;
  out.text("\n\n");
  openTag(out, block).text("\n");
  for (const { name, arguments: args } of calls) {
    openTag(out, `invoke name="${name}"`).text("\n");
    Object.entries(parseArguments(name, args)).forEach(([key, value], i) => {
      if (i > 0) out.text("\n");
      const isText = typeof value === "string";
      openTag(out, `parameter name="${key}" string="${isText}"`).text(isText ? value : pythonJson(value));
      closeTag(out, "parameter");
    });
    out.text("\n");
    closeTag(out, "invoke").text("\n");
  }
  closeTag(out, block);
}

/** The text of a prompt in which `｜DSML｜`, `<think>` and `</think>` are tokens. */
export function writeMarked(out: Rendering, text: string): void {
  for (const part of text.split(/(｜DSML｜|<\/?think>)/)) {
    if (part === DSML || part === THINK || part === END_THINK) out.token(part);
    else out.text(part);
  }
}

/** One schema a line. */
export function schemaLines(tools: readonly ToolFunction[]): string {
  return tools.map((tool) => pythonJson(tool)).join("\n");
}

function openTag(out: Rendering, tag: string): Rendering {
  return out.text("<").token(DSML).text(`${tag}>`);
}

function closeTag(out: Rendering, tag: string): Rendering {
  return out.text("</").token(DSML).text(`${tag}>`);
}

function parseArguments(name: string, args: string): object {
  let value: unknown;
  try {
    value = JSON.parse(args === "" ? "{}" : args);
  } catch {
    value = undefined;
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  throw new ConfigError(`chat: arguments of ${name}`, "must be a JSON object", args);
}
