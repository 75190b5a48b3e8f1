/** What a long job of this room tells while it works. */
export interface DataProgress {
  readonly phase: "download" | "unpack" | "tokenize";
  /** What it works on: a package or a source. */
  readonly subject: string;
  readonly doneBytes: number;
  /** 0 when it is not known. */
  readonly totalBytes: number;
}

export type ReportProgress = (progress: DataProgress) => void;
