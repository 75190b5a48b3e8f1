/** Launch files, whose templates are loaded with the first folder that is asked for. */

import type { SearchedRequest } from "./choose-layout.ts";
import type { ExportRequest } from "./export-plan.ts";
import type { LaunchFile } from "./launch.ts";

/** As `exportPlan` in export-plan.ts. */
export async function exportPlan(request: ExportRequest): Promise<LaunchFile[]> {
  return (await import("./export-plan.ts")).exportPlan(request);
}

/** As `exportFastest` in choose-layout.ts. */
export async function exportFastest(request: SearchedRequest): Promise<LaunchFile[]> {
  return (await import("./choose-layout.ts")).exportFastest(request);
}
