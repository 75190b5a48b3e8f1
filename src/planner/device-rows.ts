/**
 * Hardware rows as people write them, in GiB, GB/s and TFLOP/s: the form of the table and of a user's hardware file.
 * Everything is checked here; the planner computes with `Device`, in bytes and operations per second.
 */

import { ConfigError, nearest } from "../core/errors.ts";
import {
  CONFIDENCE_CELLS,
  CONFIDENCES,
  DEVICE_KINDS,
  PEAK_FORMATS,
  type Confidence,
  type Device,
  type LinkDomain,
  type PeakFormat,
} from "./hardware.ts";

export interface DeviceRow {
  readonly name: string;
  readonly title?: string;
  readonly aliases?: readonly string[];
  readonly kind?: Device["kind"];
  /** Memory chips have sizes in powers of two: the "80 GB" of a sheet are GiB. */
  readonly memory_gib: number;
  /** Decimal: 1e9 bytes a second. */
  readonly memory_gb_per_s: number;
  /** Dense, 1e12 operations a second. */
  readonly peak_tflops: Readonly<Partial<Record<PeakFormat, number>>>;
  /** One-way, 1e9 bytes a second for one device, and how many devices the link joins. */
  readonly link_gb_per_s?: number;
  readonly link_devices?: number;
  readonly network_gb_per_s?: number;
  readonly watts?: number;
  readonly matmul_share?: number;
  readonly confidence?: Readonly<Record<string, Confidence>>;
  readonly source?: string;
}

const GIB = 2 ** 30;
const GIGA = 1e9;
const TERA = 1e12;

/** A vendor's server joins eight devices where a row does not say otherwise. */
const USUAL_LINK_DEVICES = 8;

export function toDevice(row: DeviceRow): Device {
  return {
    name: row.name,
    title: row.title ?? row.name,
    aliases: row.aliases ?? [],
    kind: row.kind ?? "gpu",
    memoryBytes: row.memory_gib * GIB,
    memoryBytesPerSec: row.memory_gb_per_s * GIGA,
    peaks: Object.fromEntries(Object.entries(row.peak_tflops).map(([format, tera]) => [format, tera * TERA])),
    link: linkOf(row),
    networkBytesPerSec: scaled(row.network_gb_per_s, GIGA),
    watts: row.watts,
    matmulShare: row.matmul_share,
    confidence: { default: "published", ...row.confidence },
    source: row.source ?? "",
  };
}

function linkOf({
  link_gb_per_s: rate,
  link_devices: devices = USUAL_LINK_DEVICES,
}: DeviceRow): LinkDomain | undefined {
  return rate === undefined ? undefined : { bytesPerSec: rate * GIGA, devices };
}

function scaled(value: number | undefined, unit: number): number | undefined {
  return value === undefined ? undefined : value * unit;
}

type Check = (value: unknown) => boolean;

const isText: Check = (value) => typeof value === "string" && value !== "";
const isPositive: Check = (value) => typeof value === "number" && Number.isFinite(value) && value > 0;
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const isConfidence: Check = (value) => CONFIDENCES.includes(value as Confidence);

/** Each field's rule; the first four must be there. */
const FIELDS: Readonly<Record<keyof DeviceRow, readonly [rule: string, check: Check]>> = {
  name: ["must be text", isText],
  memory_gib: ["must be a number above 0", isPositive],
  memory_gb_per_s: ["must be a number above 0", isPositive],
  peak_tflops: [
    `must give dense TFLOP/s by format (${PEAK_FORMATS.join(", ")})`,
    (value) =>
      isObject(value) &&
      Object.keys(value).length > 0 &&
      Object.entries(value).every(([key, tera]) => PEAK_FORMATS.includes(key as PeakFormat) && isPositive(tera)),
  ],
  title: ["must be text", isText],
  aliases: ["must be a list of names", (value) => Array.isArray(value) && value.every(isText)],
  kind: [`must be one of ${DEVICE_KINDS.join(", ")}`, (value) => DEVICE_KINDS.includes(value as Device["kind"])],
  link_gb_per_s: ["must be a number above 0", isPositive],
  link_devices: ["must be a whole number above 0", (value) => isPositive(value) && Number.isInteger(value)],
  network_gb_per_s: ["must be a number above 0", isPositive],
  watts: ["must be a number above 0", isPositive],
  matmul_share: ["must be above 0 and at most 1", (value) => isPositive(value) && (value as number) <= 1],
  confidence: [
    `must give one of ${CONFIDENCES.join(", ")} by cell`,
    (value) => isObject(value) && Object.values(value).every(isConfidence),
  ],
  source: ["must be text", (value) => typeof value === "string"],
};

const NEEDED = ["name", "memory_gib", "memory_gb_per_s", "peak_tflops"] as const;

/**
 * The rows of a hardware file: a JSON list, or one row.
 *
 * @param place - the file's name, for messages. @throws ConfigError that names row, field, rule and value.
 */
export function parseDeviceRows(text: string, place: string): DeviceRow[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw new ConfigError(place, "must be JSON", (error as Error).message, "a list of hardware rows");
  }
  const rows = Array.isArray(parsed) ? parsed : [parsed];
  return rows.map((row, index) => checkRow(row, `${place}[${index}]`));
}

function checkRow(row: unknown, place: string): DeviceRow {
  if (!isObject(row)) throw new ConfigError(place, "must be a hardware row", row, `give ${NEEDED.join(", ")}`);
  const missing = NEEDED.find((field) => row[field] === undefined);
  if (missing !== undefined) throw new ConfigError(`${place}.${missing}`, FIELDS[missing][0], undefined, "add it");
  for (const [field, value] of Object.entries(row)) {
    if (!Object.hasOwn(FIELDS, field)) {
      const near = nearest(field, Object.keys(FIELDS));
      throw new ConfigError(`${place}.${field}`, "must be a known field", undefined, near && `did you mean ${near}?`);
    }
    const [rule, check] = FIELDS[field as keyof DeviceRow];
    if (!check(value)) throw new ConfigError(`${place}.${field}`, rule, value);
  }
  checkCells(Object.keys(row["confidence"] ?? {}), `${place}.confidence`);
  return row as unknown as DeviceRow;
}

function checkCells(cells: readonly string[], place: string): void {
  const unknown = cells.find((cell) => !CONFIDENCE_CELLS.includes(cell));
  if (unknown === undefined) return;
  const near = nearest(unknown, CONFIDENCE_CELLS);
  const cure = near === undefined ? `known: ${CONFIDENCE_CELLS.join(", ")}` : `did you mean ${near}?`;
  throw new ConfigError(`${place}.${unknown}`, "must be a known cell", undefined, cure);
}
