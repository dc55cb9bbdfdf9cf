// Reads references with bible-passage-reference-parser, used as its documentation says.
//
// Each line on stdin is {"text": …, "language": "de", "punctuation": "eu", "query": true}; all but the
// text may be left out. The line on stdout that answers it is a list of
// {"osis": "John.3.16-John.3.18", "start": …, "end": …}, with positions in UTF-16 code units.

import readline from "node:readline";
import { bcv_parser } from "bible-passage-reference-parser/esm/bcv_parser.js";

// The defaults are meant for text, and these options for what is typed into a field.
const QUERY = {
  book_alone_strategy: "full",
  book_range_strategy: "include",
  captive_end_digits_strategy: "include",
};
const parsers = new Map();

async function parserFor({ language = "en", punctuation = "us", query = false }) {
  const key = `${language} ${punctuation} ${query}`;
  if (!parsers.has(key)) {
    const names = await import(`bible-passage-reference-parser/esm/lang/${language}.js`);
    const parser = new bcv_parser(names);
    parser.set_options({
      osis_compaction_strategy: "bcv",
      punctuation_strategy: punctuation,
      ...(query ? QUERY : {}),
    });
    parsers.set(key, parser);
  }
  return parsers.get(key);
}

function parse(parser, text) {
  return parser.parse(text).osis_and_indices().flatMap(({ osis, indices: [start, end] }) =>
    osis.split(",").map((part) => ({ osis: part, start, end })));
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  const found = parse(await parserFor(request), request.text);
  process.stdout.write(`${JSON.stringify(found)}\n`);
}
