// Tables of the most and least alike pairs among the latents that are shown.

const LISTED = 10;

// The most alike and the least alike pairs of these rows with their best partners, each pair once.
function extremePairs(data, rows, single) {
  const { slot, cosine } = single ? data.bestSingle : data.best;
  const known = Array.from(rows).filter((i) => slot[i] !== NOBODY);
  const pick = (order) => {
    const found = new Map();
    for (const i of known.sort(order)) {
      const p = partnersOf(data, i)[slot[i]];
      const partner = single ? p.single : p.nearest;
      const key = partner === NOBODY ? i : [i, partner].sort((a, b) => a - b).join();
      if (!found.has(key)) found.set(key, { row: i, partner, ...p, cosine: cosine[i] });
      if (found.size === LISTED) break;
    }
    return [...found.values()];
  };
  return [pick((i, j) => cosine[j] - cosine[i] || i - j), pick((i, j) => cosine[i] - cosine[j] || i - j)];
}

function showPairs(data, rows, single, go) {
  const [best, worst] = extremePairs(data, rows, single);
  document.getElementById('pair-tables').replaceChildren(
    pairTable(data, 'Most alike', best, go),
    pairTable(data, 'Least alike', worst, go),
    make('p', { className: 'muted' }, 'Pairs of the latents shown, each with its partner in the closest run. By chance: the mean against the turned run.'),
  );
}

function pairTable(data, title, pairs, go) {
  const head = ['latent', 'partner', 'cosine', 'by chance', 'significant'];
  const body = pairs.flatMap((p) => [
    make('tr', {},
      make('td', {}, latentLink(data, p.row, data.run[p.row], go)),
      make('td', {}, latentLink(data, p.partner, p.run, go)),
      make('td', {}, three(p.cosine)),
      make('td', {}, three(p.byChance)),
      make('td', {}, p.significant ? 'yes' : 'no')),
    ...meaningRow(data, p),
  ]);
  return make('table', {},
    make('caption', {}, title),
    make('thead', {}, make('tr', {}, ...head.map((text) => make('th', { scope: 'col' }, text)))),
    make('tbody', {}, ...body));
}

// The labels of both latents of a pair, for the row below their numbers.
function meaningRow(data, { row, partner, run }) {
  const said = [[data.run[row], row], [run, partner]].flatMap(([r, i]) => {
    const [text] = i === NOBODY ? [] : meaningOf(data, i);
    return text ? [make('div', {}, swatch(runColor(r)), ` ${text}`)] : [];
  });
  return said.length ? [make('tr', { className: 'meaning' }, make('td', { colSpan: 5 }, ...said))] : [];
}

function latentLink(data, row, run, go) {
  if (row === NOBODY) return make('span', { title: data.runs[run].name }, swatch(runColor(run)), ' –');
  const named = latentIn(data, row, run);
  return make('button', { type: 'button', className: 'link', title: named, ariaLabel: named, onclick: () => go(row) },
    swatch(runColor(run)), ` ${data.id[row]}`);
}
