/**
 * A table about the 671B model that is often quoted, beside the truth. Its shares add up and its total is right, but no
 * row of it can be found in the model.
 */

import { ConfigError } from "../core/errors.ts";
import type { Blueprint } from "./blueprint.ts";
import { countParameters } from "./counts.ts";
import { exactSum, type ParameterGroup } from "./parameter.ts";

interface Claim {
  readonly name: string;
  readonly claimed: number;
  readonly groups: readonly ParameterGroup[];
  readonly truth: string;
}

export interface ComparedClaim {
  readonly name: string;
  readonly claimed: number;
  /** Shares are in 0 to 1. */
  readonly claimedShare: number;
  readonly counted: number;
  readonly countedShare: number;
  readonly truth: string;
}

const BILLION = 1e9;
const CLAIMED_TOTAL = 671 * BILLION;

const CLAIMS: readonly Claim[] = [
  {
    name: "embedding",
    claimed: 12 * BILLION,
    groups: ["embedding"],
    truth: "vocab_size × dim; positions have no parameters",
  },
  {
    name: "attention",
    claimed: 180 * BILLION,
    groups: ["attention", "indexers", "compressors"],
    truth: "small in weights, large in what a token activates",
  },
  {
    name: "FFN",
    claimed: 320 * BILLION,
    groups: ["dense_ffn", "routed_experts", "shared_experts"],
    truth: "almost the whole model: dense layers, routed and shared experts",
  },
  { name: "LayerNorm", claimed: 5 * BILLION, groups: ["norms"], truth: "RMSNorm has one weight for each channel" },
  {
    name: "output head",
    claimed: 8 * BILLION,
    groups: ["head"],
    truth: "the shape of the embedding, so it cannot differ from it",
  },
  {
    name: "others (residual connections)",
    claimed: 146 * BILLION,
    groups: ["gates", "hyper_connections", "vision", "projector"],
    truth: "additions have no parameters; what is left are the routers",
  },
];

/**
 * Each row of the table with what the model has; the rows of both sides add up to their totals.
 * @throws ConfigError for a model of another size.
 */
export function compareWithArticle(blueprint: Blueprint): ComparedClaim[] {
  const { total, byModule } = countParameters(blueprint);
  if (Math.floor(total / BILLION) * BILLION !== CLAIMED_TOTAL) {
    const cure = "compare deepseek-v3, deepseek-r1 or another of their size";
    throw new ConfigError("--compare article", "must stand with a model of 671 B parameters", total, cure);
  }
  const rows = CLAIMS.map(({ name, claimed, groups, truth }) => {
    const counted = exactSum(groups.map((group) => byModule[group]?.total ?? 0));
    return { name, claimed, claimedShare: claimed / CLAIMED_TOTAL, counted, countedShare: counted / total, truth };
  });
  const sum = { name: "total", claimed: CLAIMED_TOTAL, claimedShare: 1, counted: total, countedShare: 1, truth: "" };
  return [...rows, sum];
}
