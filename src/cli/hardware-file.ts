/** The user's own rows of the hardware table: a JSON list in the cache folder, or a file that is named. */

import { dirname, join } from "node:path";
import { readText, writeWhole } from "../formats/index.ts";
import { nodeFiles } from "../formats/node.ts";
import { device, parseDeviceRows, type Device, type DeviceRow } from "../planner/index.ts";
import { cacheDir } from "./options.ts";

export function hardwareFile(): string {
  return join(cacheDir(), "hardware.json");
}

/** @throws ConfigError for a malformed row. @throws IoError when a file that was named cannot be read. */
export async function userRows(named?: string): Promise<DeviceRow[]> {
  const path = named ?? hardwareFile();
  if (named === undefined && !(await nodeFiles.isFile(path))) return [];
  return parseDeviceRows(await readText(nodeFiles, path), path);
}

/** A device of the table or of the user's file. @throws ConfigError with the nearest name. */
export async function userDevice(name: string, file?: string): Promise<Device> {
  return device(name, await userRows(file));
}

/** Adds a row to the file, or replaces the one of the same name. */
export async function saveRow(row: DeviceRow, path: string = hardwareFile()): Promise<void> {
  const known = (await nodeFiles.isFile(path)) ? parseDeviceRows(await readText(nodeFiles, path), path) : [];
  const rows = [...known.filter(({ name }) => name !== row.name), row];
  await nodeFiles.makeFolder(dirname(path));
  await writeWhole(nodeFiles, path, [new TextEncoder().encode(`${JSON.stringify(rows, null, 2)}\n`)]);
}
