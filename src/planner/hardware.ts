/** What the planner knows of one device: dense peaks, memory, links and power, each with its confidence. */

import { ConfigError, nearest } from "../core/errors.ts";

/**
 * How sure a figure is: timed on a machine; in a vendor's sheet or an engine's table; in an article; or stated without
 * such a source.
 */
export const CONFIDENCES = ["measured", "published", "reported", "unverified"] as const;
export type Confidence = (typeof CONFIDENCES)[number];

/** Formats of matrix products whose peaks a device may state. */
export const PEAK_FORMATS = ["fp32", "fp16", "bf16", "fp8", "int8", "fp4"] as const;
export type PeakFormat = (typeof PEAK_FORMATS)[number];

/** Cells of a row that may have a confidence of their own; `default` is that of the others. */
export const CONFIDENCE_CELLS = ["default", "memory", "bandwidth", ...PEAK_FORMATS, "link", "network", "watts"];

/** Devices that reach each other through the fast link; beyond them the network carries the bytes. */
export interface LinkDomain {
  /** One-way bytes per second of one device over the fast link (NVLink, xGMI, PCIe). */
  readonly bytesPerSec: number;
  /** Devices in one domain: 8 in a usual server, 72 in an NVL72 rack. */
  readonly devices: number;
}

export const DEVICE_KINDS = ["gpu", "cpu", "apu", "npu"] as const;

/** One row of the hardware table. Rates are per second, memory in bytes, operations in FLOP or OP. */
export interface Device {
  /** Lower-case name that the command line takes: `h800`. */
  readonly name: string;
  /** The vendor's name: `NVIDIA H800 SXM`. */
  readonly title: string;
  readonly aliases: readonly string[];
  readonly kind: (typeof DEVICE_KINDS)[number];
  readonly memoryBytes: number;
  readonly memoryBytesPerSec: number;
  /** Dense peaks (no structured sparsity), operations per second; a format that is absent is not accelerated. */
  readonly peaks: Readonly<Partial<Record<PeakFormat, number>>>;
  readonly link: LinkDomain | undefined;
  /** One-way network bytes per second of one device. */
  readonly networkBytesPerSec: number | undefined;
  readonly watts: number | undefined;
  /** Share of the bf16 peak that large matrix products reach; undefined where nobody measured it. */
  readonly matmulShare: number | undefined;
  /** Confidence by cell, one of `CONFIDENCE_CELLS`. */
  readonly confidence: Readonly<{ default: Confidence } & Record<string, Confidence>>;
  readonly source: string;
}

/** The confidence of one cell. */
export function confidenceOf({ confidence }: Device, cell: string): Confidence {
  return confidence[cell] ?? confidence.default;
}

/** Operations per second at the dense peak of a format. @throws ConfigError when the device does not accelerate it. */
export function peakOf(device: Device, format: PeakFormat): number {
  const peak = device.peaks[format] ?? (format === "bf16" ? device.peaks.fp16 : undefined);
  if (peak !== undefined) return peak;
  const known = Object.keys(device.peaks).join(", ");
  throw new ConfigError(`${device.name}.peaks`, `must have ${format}`, known, "choose one of these precisions");
}

/**
 * The device of this name or alias, in any case; spaces, dashes and underscores count the same.
 *
 * @param devices - the table, user rows first: an earlier row wins. @throws ConfigError with the nearest name.
 */
export function findDevice(devices: readonly Device[], name: string): Device {
  const wanted = plain(name);
  const found = devices.find((device) => [device.name, ...device.aliases].some((known) => plain(known) === wanted));
  if (found !== undefined) return found;
  const near = nearest(
    name,
    devices.flatMap((device) => [device.name, ...device.aliases]),
  );
  const cure =
    near === undefined ? `known: ${devices.map((device) => device.name).join(", ")}` : `did you mean ${near}?`;
  throw new ConfigError("device", "must be in the hardware table or in your hardware file", name, cure);
}

function plain(name: string): string {
  return name.toLowerCase().replaceAll(/[\s_-]+/g, "");
}
