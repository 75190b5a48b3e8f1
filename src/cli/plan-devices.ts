/** `fathom plan devices`: the hardware table, the user's rows first. */

import { Command } from "commander";
import { confidenceOf, DEVICES, toDevice, type Device } from "../planner/index.ts";
import { userDevice, userRows } from "./hardware-file.ts";
import { print, printJson, snake } from "./output.ts";
import { formatTable } from "./table.ts";

interface DevicesOptions {
  readonly hardware?: string;
  readonly json?: boolean;
}

export function devicesCommand(): Command {
  return new Command("devices")
    .description("the hardware table: dense peaks, memory, links; ? marks unverified figures")
    .argument("[name]", "one device")
    .option("--hardware <file>", "hardware file with rows of your own")
    .option("--json", "one JSON document on stdout")
    .action(devices);
}

async function devices(name: string | undefined, { hardware, json = false }: DevicesOptions): Promise<void> {
  const rows =
    name === undefined ? [...(await userRows(hardware)).map(toDevice), ...DEVICES] : [await userDevice(name, hardware)];
  if (json) return printJson(snake(rows));
  print(formatTable({ head: HEAD, rows: rows.map(cellsOf), left: [0, 1] }, "text"));
  if (name !== undefined) print(`\n${rows[0]!.title}: ${rows[0]!.source}`);
}

const HEAD = ["name", "kind", "GiB", "TB/s", "bf16 TF", "fp8", "int8", "fp4", "link GB/s", "net GB/s", "W"];

function cellsOf(device: Device): string[] {
  const { memoryBytes, memoryBytesPerSec, peaks, link, networkBytesPerSec, watts } = device;
  const cell = (name: string, value: number | undefined, unit: number): string => {
    if (value === undefined) return "–";
    return `${Number((value / unit).toPrecision(4))}${confidenceOf(device, name) === "unverified" ? "?" : ""}`;
  };
  return [
    device.name,
    device.kind,
    cell("memory", memoryBytes, 2 ** 30),
    cell("bandwidth", memoryBytesPerSec, 1e12),
    peaks.bf16 === undefined && peaks.fp16 !== undefined
      ? `${cell("fp16", peaks.fp16, 1e12)} fp16`
      : cell("bf16", peaks.bf16, 1e12),
    cell("fp8", peaks.fp8, 1e12),
    cell("int8", peaks.int8, 1e12),
    cell("fp4", peaks.fp4, 1e12),
    cell("link", link?.bytesPerSec, 1e9),
    cell("network", networkBytesPerSec, 1e9),
    cell("watts", watts, 1),
  ];
}
