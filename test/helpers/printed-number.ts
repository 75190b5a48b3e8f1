/** Numbers as commands print them: rounded, with commas, in a unit. */

/** How many of a number's own unit each printed unit is. */
const UNITS: Readonly<Record<string, number>> = {
  GB: 1e9,
  MB: 1e6,
  GiB: 2 ** 30,
  MiB: 2 ** 20,
  bytes: 1,
  s: 1,
  ms: 1e-3,
  hours: 3600,
  days: 86_400,
  "%": 0.01,
  "tokens/s": 1,
  "tokens/s/device": 1,
  "billion tokens": 1e9,
  GFLOP: 1e9,
  $: 1,
  J: 1,
  kWh: 1,
  "device-hours": 1,
  of: 1,
};

/** Whether `1,234.5` in this unit is the value, rounded to the last digit that stands there. */
export function isPrinted(text: string, unit: string, value: number): boolean {
  const scale = UNITS[unit];
  if (scale === undefined) throw new Error(`no unit ${unit}`);
  const decimals = /\.(\d+)$/.exec(text)?.[1]?.length ?? 0;
  const half = 0.5 * 10 ** -decimals;
  return Math.abs(Number(text.replaceAll(",", "")) - value / scale) <= half * (1 + 1e-6);
}
