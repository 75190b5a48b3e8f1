/** Models on the local disk. */

export { checkStored, openModel, readModel, type ModelSource, type OpenedModel } from "./open-model.ts";
