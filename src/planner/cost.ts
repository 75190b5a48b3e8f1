/** Money and energy of device-seconds. Prices are in any currency; DeepSeek's own reports reckon 2 $ for an H800-hour. */

import { ConfigError } from "../core/errors.ts";
import { compileSheet, formulaRow, type InputRow, type Quantity } from "./formula.ts";
import type { Device } from "./hardware.ts";

const INPUTS: readonly InputRow[] = [
  { name: "devices", unit: "devices", meaning: "in all" },
  { name: "bill.seconds", unit: "s", meaning: "time of the work" },
  { name: "bill.tokens", unit: "tokens", meaning: "trained on, read or written in that time" },
  { name: "price", unit: "$", meaning: "assumed price of a device for an hour" },
  { name: "watts", unit: "W", meaning: "board power of a device" },
  { name: "load", unit: "", meaning: "share of the board power that is drawn on average" },
  { name: "host_share", unit: "", meaning: "power of host and network for each watt of the devices" },
  { name: "pue", unit: "", meaning: "power of the building for each watt of the machines" },
];

const SHEET = compileSheet(
  [INPUTS],
  [
    formulaRow("bill.hours", "devices * bill.seconds / 3600", "device-hours", "devices times their time"),
    formulaRow("bill.cost", "bill.hours * price", "$", "price of the devices' time"),
    formulaRow("bill.cost_per_million", "bill.cost / bill.tokens * 1e6", "$", "for a million tokens"),
    formulaRow(
      "bill.joules",
      "devices * bill.seconds * watts * load * (1 + host_share) * pue",
      "J",
      "energy of the work",
    ),
    formulaRow("bill.energy", "bill.joules / 3.6e6", "kWh", "energy of the work"),
    formulaRow("bill.joules_per_token", "bill.joules / bill.tokens", "J", "energy of a token"),
  ],
);

/** Names that `explainBill` knows. */
export const BILL_NAMES: readonly string[] = ["bill.seconds", ...SHEET.rows.map(({ name }) => name)];

/** Work of a number of devices for a time. */
export interface Usage {
  readonly devices: number;
  readonly seconds: number;
  /** Tokens trained on, read or written in that time. */
  readonly tokens: number;
}

export interface Cost {
  readonly deviceHours: number;
  readonly cost: number;
  readonly costPerMillionTokens: number;
}

/** @example costOf({ devices: 1814, seconds: 86400, tokens: 776e9 }, 2).cost // 87072 */
export function costOf(usage: Usage, pricePerDeviceHour: number): Cost {
  const read = evaluated(usage, { price: pricePerDeviceHour });
  return {
    deviceHours: read("bill.hours"),
    cost: read("bill.cost"),
    costPerMillionTokens: read("bill.cost_per_million"),
  };
}

export interface EnergySettings {
  /** Share of the board power that is drawn on average; 1. */
  readonly load?: number;
  /** Power of host and network for each watt of the devices; 0. */
  readonly hostShare?: number;
  /** Power of the building for each watt of the machines (PUE); 1. */
  readonly pue?: number;
}

export interface Energy {
  readonly kwh: number;
  readonly joulesPerToken: number;
}

/** Energy at the board power of the table; undefined for a device whose power is not known. */
export function energyOf(usage: Usage, { watts }: Device, settings: EnergySettings = {}): Energy | undefined {
  if (watts === undefined) return undefined;
  const read = evaluated(usage, { watts, ...settings });
  return { kwh: read("bill.energy"), joulesPerToken: read("bill.joules_per_token") };
}

interface BillSettings extends EnergySettings {
  readonly price?: number;
  readonly watts?: number;
}

function evaluated(usage: Usage, settings: BillSettings): (name: string) => number {
  const registers = registersOf(usage, settings);
  return (name) => registers[SHEET.slot(name)]!;
}

function registersOf({ devices, seconds, tokens }: Usage, settings: BillSettings): Float64Array {
  const { price = 0, watts = 0, load = 1, hostShare = 0, pue = 1 } = settings;
  const registers = SHEET.createRegisters();
  [devices, seconds, tokens, price, watts, load, hostShare, pue].forEach((value, i) => {
    registers[SHEET.slot(INPUTS[i]!.name)] = value;
  });
  SHEET.run(registers);
  return registers;
}

/** Work whose speed has a derivation of its own. */
interface DerivedUsage {
  readonly devices: number;
  readonly tokens: number;
  /** Tokens per second of all devices. */
  readonly rate: Quantity;
}

/**
 * Where a number of BILL_NAMES comes from, down to the inputs of the rate.
 * @throws ConfigError for the energy of a device whose power is not known.
 */
export function explainBill(name: string, usage: DerivedUsage, { title, watts }: Device, price: number): Quantity {
  if (watts === undefined && /joules|energy/.test(name)) {
    throw new ConfigError("--why", "must be a number of the plan", name, `the power of ${title} is not known`);
  }
  const { devices, tokens, rate } = usage;
  const seconds = tokens / rate.value;
  const registers = registersOf({ devices, seconds, tokens }, { price, watts: watts ?? 0 });
  const count = SHEET.explain("bill.tokens", registers);
  const time = { ...SHEET.explain("bill.seconds", registers), formula: `bill.tokens / ${rate.name}` };
  return withInput(SHEET.explain(name, registers), { ...time, inputs: [count, rate] });
}

/** The derivation with another one in the place of an input. */
function withInput(quantity: Quantity, origin: Quantity): Quantity {
  if (quantity.name === origin.name) return origin;
  return { ...quantity, inputs: quantity.inputs.map((input) => withInput(input, origin)) };
}

/** Tokens of one day of a service, in millions of tokens times the price of a million. */
export interface Sales {
  readonly millions: number;
  readonly price: number;
}

export function revenueOf(sales: readonly Sales[]): number {
  return sales.reduce((sum, { millions, price }) => sum + millions * price, 0);
}
