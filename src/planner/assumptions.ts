/** What the planner assumes where a device, an engine or the user says nothing better. Every number stands here once. */

interface Assumption {
  readonly value: number;
  readonly meaning: string;
  readonly source: string;
}

const AICONFIGURATOR = "aiconfigurator 0.11";

const ASSUMPTIONS = {
  memoryMargin: {
    value: 0.85,
    meaning: "share of a memory that may be planned; the rest is for fragments, the runtime and buffers of collectives",
    source: "the share below which operators keep devices; printed with every plan",
  },
  memoryShare: {
    value: 0.8,
    meaning: "share of the memory's peak rate that kernels reach",
    source: `${AICONFIGURATOR}, empirical scaling`,
  },
  linkShare: {
    value: 0.87,
    meaning: "share of a link's peak rate that large collectives of training reach",
    source: "NCCL tests, ml-engineering network tables",
  },
  servingLinkShare: {
    value: 0.85,
    meaning: "share of a link's peak rate that the smaller exchanges of serving reach",
    source: "assumed a little below that of large collectives",
  },
  latencySec: {
    value: 10e-6,
    meaning: "seconds that one collective call waits besides moving bytes",
    source: `${AICONFIGURATOR}, point-to-point latency`,
  },
  matmulShare: {
    value: 0.75,
    meaning: "share of the peak that large products reach on a device that nobody measured",
    source: "about the median of measured shares: A100 0.87, H100 0.80, B200 0.78, MI300X 0.51",
  },
  servingMatmulShare: {
    value: 0.7,
    meaning: "the same for the products of serving, which are smaller",
    source: "about the measured share of fp8 products on H100, 0.71",
  },
  modelShapeShare: {
    value: 0.75,
    meaning: "products of a model in training against the largest measured ones",
    source: "assumed: experts see few tokens each, and heads are narrow",
  },
  hiddenShare: {
    value: 0.5,
    meaning: "share of communication that runs behind computation in an engine without published run",
    source: "assumed half, between none and the all of DualPipe",
  },
  decodeCorrection: { value: 1.08, meaning: "factor on the time of a decode step", source: AICONFIGURATOR },
  prefillCorrection: { value: 1.1, meaning: "factor on the time of a prefill pass", source: AICONFIGURATOR },
  runtimeBytes: {
    value: 3.5e9,
    meaning: "bytes of runtime, graphs and communication buffers on a serving device",
    source: AICONFIGURATOR,
  },
  draftAcceptance: {
    value: 0.85,
    meaning: "how often a token that MTP drafts is right",
    source: "DeepSeek-V3 report 5.4.3: 85 to 90 % of second tokens",
  },
} as const satisfies Record<string, Assumption>;

type AssumptionName = keyof typeof ASSUMPTIONS;

/** The number alone. */
export const ASSUMED = Object.fromEntries(
  Object.entries(ASSUMPTIONS).map(([name, { value }]) => [name, value]),
) as Readonly<Record<AssumptionName, number>>;

/** All of them, to be printed. */
export function listAssumptions(): (Assumption & { readonly name: string })[] {
  return Object.entries(ASSUMPTIONS).map(([name, row]) => ({ name, ...row }));
}
