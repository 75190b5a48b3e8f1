/** Money and energy of device-seconds. Prices are in any currency; DeepSeek's own reports reckon 2 $ for an H800-hour. */

import type { Device } from "./hardware.ts";

const SECONDS_PER_HOUR = 3600;
const JOULES_PER_KWH = 3.6e6;
const MILLION = 1e6;

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
export function costOf({ devices, seconds, tokens }: Usage, pricePerDeviceHour: number): Cost {
  const deviceHours = (devices * seconds) / SECONDS_PER_HOUR;
  const cost = deviceHours * pricePerDeviceHour;
  return { deviceHours, cost, costPerMillionTokens: (cost / tokens) * MILLION };
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
  const { load = 1, hostShare = 0, pue = 1 } = settings;
  const joules = usage.devices * usage.seconds * watts * load * (1 + hostShare) * pue;
  return { kwh: joules / JOULES_PER_KWH, joulesPerToken: joules / usage.tokens };
}

/** Tokens of one day of a service, in millions of tokens times the price of a million. */
export interface Sales {
  readonly millions: number;
  readonly price: number;
}

export function revenueOf(sales: readonly Sales[]): number {
  return sales.reduce((sum, { millions, price }) => sum + millions * price, 0);
}
