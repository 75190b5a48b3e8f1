/** Models on the local disk. */

export { checkStored, openModel, readModel, refusePickles, type ModelSource, type OpenedModel } from "./open-model.ts";
export { readFolderConfig } from "./folder-config.ts";
