/** Rules that the reference model can break on purpose; what only changes the configuration is not among them. */

export type Fault = "biased weights" | "mask 0" | "other group rule" | "wide kv norm";

export type Faults = ReadonlySet<Fault>;

export const NO_FAULTS: Faults = new Set();
