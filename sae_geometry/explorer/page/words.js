// Tokens and explanations of latents, and the search for a word in them.

// The top tokens of a latent, largest first, as numbers and as text; none without labels.
const numbersOf = (data, i) => Array.from(data.tokens?.subarray(i * data.perLatent, (i + 1) * data.perLatent) ?? []).filter(Boolean);
const tokensOf = (data, i) => numbersOf(data, i).map((number) => data.words[number - 1]);

const explanationOf = (data, i) => data.explanations[i] ?? '';

// Latents of a run, or of any run (−1), that promote a token or whose explanation has words that begin with it. Case is
// ignored.
function rowsWith(data, text, run) {
  const wanted = text.trim().toLowerCase();
  const numbers = new Set();
  data.words.forEach((word, at) => { if (word.trim().toLowerCase() === wanted) numbers.add(at + 1); });
  const escaped = wanted.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  const said = new RegExp(`(?<![\\p{L}\\p{N}])${escaped}`, 'iu');
  const rows = [];
  for (let i = 0; i < data.n; i++) {
    if (run >= 0 && data.run[i] !== run) continue;
    if (said.test(explanationOf(data, i)) || numbersOf(data, i).some((number) => numbers.has(number))) rows.push(i);
  }
  return rows;
}

// The tokens that are most characteristic of these rows: frequent among them compared with all rows.
function tokensOfRows(data, rows, most = 8) {
  const tally = (each) => {
    const counts = new Map();
    for (const i of each) {
      for (const number of numbersOf(data, i)) counts.set(number, (counts.get(number) ?? 0) + 1);
    }
    return counts;
  };
  data.tallied ??= tally(Array(data.n).keys());
  const score = ([number, n]) => n * Math.log((n * data.n) / (data.tallied.get(number) * rows.length));
  return [...tally(rows)]
    .sort((a, b) => score(b) - score(a) || a[0] - b[0])
    .slice(0, most)
    .map(([number, n]) => [data.words[number - 1], n]);
}

// A token for display: without the spaces around it, unless it consists of spaces.
const quoted = (token) => token.trim() || `‘${token}’`;

// Highlight the latents that promote a token or whose explanation has the words.
function findWord(text, run) {
  const rows = rowsWith(data, text, run);
  if (!rows.length) return answer(`No latent has ${quoted(text.trim())} among its labels.`);
  Object.assign(state, { word: text.trim(), wordRun: run, lit: new Set(rows) });
  const most = 6;
  const some = rows.slice(0, most).map((row) =>
    make('button', { type: 'button', className: 'link', onclick: () => select(row) }, `${nameOf(data, row)} ${data.id[row]}`));
  const more = rows.length > most ? ` and ${count(rows.length - most)} more ` : ' ';
  answer(`${count(rows.length)} latent${rows.length === 1 ? '' : 's'} with ${quoted(state.word)}: `,
    ...some.flatMap((button, at) => (at ? [', ', button] : [button])), more,
    make('button', { type: 'button', className: 'link', id: 'unlight', onclick: unlight }, 'show all'));
  redrawSoon();
}

// A number that was searched for as an id may also be a token.
function offerWord(text, run) {
  const n = rowsWith(data, text, run).length;
  if (!n) return;
  document.getElementById('answer').append(' ', make('button', { type: 'button', className: 'link', id: 'as-word', onclick: () => findWord(text, run) },
    `As a token: ${count(n)} latent${n === 1 ? '' : 's'}`));
}

function unlight() {
  Object.assign(state, { word: null, wordRun: -1, lit: null });
  answer('');
  redrawSoon();
}
