/** What a checkpoint says of its chat: its family, and the template that it brings along in Jinja. */
import { join } from "node:path";
import { FormatError } from "../core/errors.ts";
import { openGgufTensors, readText } from "../formats/index.ts";
import { nodeFiles } from "../formats/node.ts";

export interface CheckpointChat {
  /** `model_type` of config.json, or `general.architecture` of GGUF. */
  readonly family: string | undefined;
  /** The template, and the file that it stands in; undefined when there is none. */
  readonly jinja: { readonly text: string; readonly file: string } | undefined;
}

/**
 * Reads `chat_template.jinja`, else `chat_template` in tokenizer_config.json, of a model folder, or the metadata of a `.gguf`
 * file.
 * @throws FormatError when a file is malformed.
 */
export async function readCheckpointChat(path: string): Promise<CheckpointChat> {
  if (path.endsWith(".gguf")) return fromGguf(path);
  const { model_type: family } = await readJsonObject(join(path, "config.json"));
  return { family: textOr(family), jinja: await folderTemplate(path) };
}

async function folderTemplate(folder: string): Promise<CheckpointChat["jinja"]> {
  const own = join(folder, "chat_template.jinja");
  if (await nodeFiles.isFile(own)) return { text: await readText(nodeFiles, own), file: own };
  const file = join(folder, "tokenizer_config.json");
  const text = oneTemplate((await readJsonObject(file))["chat_template"]);
  return text === undefined ? undefined : { text, file };
}

async function fromGguf(file: string): Promise<CheckpointChat> {
  const gguf = await openGgufTensors(nodeFiles, file);
  await gguf.close();
  const textOf = (key: string): string | undefined => {
    const entry = gguf.metadata.get(key);
    return entry?.type === "text" ? textOr(entry.value) : undefined;
  };
  const text = textOf("tokenizer.chat_template");
  return { family: textOf("general.architecture"), jinja: text === undefined ? undefined : { text, file } };
}

/** One template, or the one named `default` of several. */
function oneTemplate(value: unknown): string | undefined {
  if (!Array.isArray(value)) return textOr(value);
  const named = value as readonly { name?: unknown; template?: unknown }[];
  return textOr(named.find(({ name }) => name === "default")?.template);
}

function textOr(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

/** The members of a JSON file; none when it does not exist. */
async function readJsonObject(file: string): Promise<Readonly<Record<string, unknown>>> {
  if (!(await nodeFiles.isFile(file))) return {};
  try {
    return Object(JSON.parse(await readText(nodeFiles, file))) as Readonly<Record<string, unknown>>;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new FormatError(file, "must be JSON", { got: error.message });
  }
}
