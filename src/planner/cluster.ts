/** Devices that work together, and which link carries the bytes of a group of them. */

import { ConfigError } from "../core/errors.ts";
import type { Device } from "./hardware.ts";

export interface Cluster {
  readonly device: Device;
  /** Devices in all. */
  readonly count: number;
}

/**
 * `2048xH800` → 2048 and "H800", `8x4090` → 8 and "4090"; a name alone, unless it is all digits, is one device.
 *
 * @throws ConfigError for another form.
 */
export function parseGpus(text: string): { count: number; name: string } {
  const match = /^(?!\d+$)(?:(\d+)\s*[x×*]\s*)?([a-z].*|\d{2,}[a-z]*)$/i.exec(text.trim());
  const count = Number(match?.[1] ?? 1);
  if (match === null || !Number.isSafeInteger(count) || count < 1) {
    throw new ConfigError("--gpus", "must be COUNTxNAME", text, "for example --gpus 2048xH800");
  }
  return { count, name: match[2]! };
}

/** Devices that share a fast link: a server, or a rack of 72. */
export function devicesPerNode({ device, count }: Cluster): number {
  return Math.min(count, device.link?.devices ?? 1);
}
