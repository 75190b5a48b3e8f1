/** Bash as data: words, commands and scripts. Quoting happens here and nowhere else. */

/** A literal word, or an expression of the shell such as `$NODE_RANK`, which is expanded inside double quotes. */
export type Word = string | number | { readonly expand: string };

/** A part of a command that stays on one line: a program with its subcommand, or a flag with its values. */
export type Phrase = readonly Word[];

export function expand(expression: string): Word {
  return { expand: expression };
}

const PLAIN = /^[A-Za-z0-9_@%+=:,./-]+$/;

/** The word as bash must see it to hand on exactly this text. */
export function quote(word: Word): string {
  if (typeof word === "object") return `"${word.expand}"`;
  const text = String(word);
  return PLAIN.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A command over several lines, one phrase a line. */
export function command(phrases: readonly Phrase[]): string {
  return phrases.map((phrase) => phrase.map(quote).join(" ")).join(" \\\n  ");
}

/** Text for comments and titles: one line without control characters. */
export function oneLine(text: string): string {
  // oxlint-disable-next-line no-control-regex -- these are what is taken out
  return text.replaceAll(/[\u0000-\u001F\u007F\u2028\u2029]+/g, " ").trim();
}

export interface Script {
  /** Comment lines at the head, such as directives of a batch system. */
  readonly directives?: readonly string[];
  readonly about: readonly string[];
  /** Variables that the caller may set, with the value that they have otherwise. */
  readonly defaults?: Readonly<Record<string, Word>>;
  /** Variables that the caller must set, with what they hold. */
  readonly required?: Readonly<Record<string, string>>;
  readonly environment?: Readonly<Record<string, Word>>;
  /** Commands, in order. */
  readonly body: readonly string[];
}

/** A script that stops at the first failure and runs in its own folder. */
export function script(parts: Script): string {
  const { directives = [], about, defaults = {}, required = {}, environment = {}, body } = parts;
  const blocks = [
    ["#!/usr/bin/env bash", ...directives, ...about.map((line) => `# ${oneLine(line)}`)],
    ["set -euo pipefail", 'cd "$(dirname "$0")"'],
    Object.entries(defaults).flatMap(([name, word]) => [`${isSet(name)} || ${name}=${quote(word)}`, `export ${name}`]),
    Object.entries(required).map(
      ([name, what]) => `${isSet(name)} || { echo ${quote(`${name} must be set: ${oneLine(what)}`)} >&2; exit 2; }`,
    ),
    Object.entries(environment).map(([name, word]) => `export ${name}=${quote(word)}`),
    ...body.map((text) => [text]),
  ];
  return `${blocks
    .filter((block) => block.length > 0)
    .map((block) => block.join("\n"))
    .join("\n\n")}\n`;
}

function isSet(name: string): string {
  return `[ -n "\${${name}:-}" ]`;
}
