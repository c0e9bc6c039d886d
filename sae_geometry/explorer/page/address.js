// The fragment of the address has the selected latent and the filters, so that a link shows what its sender saw.

const FILTERS = ['only', 'partner', 'from', 'counting', 'region', 'color', 'word'];

// The address of a latent, or of none, under the current filters: #run=NAME&latent=ID&only=NAME&partner=yes&…
function addressOf(row) {
  const said = new URLSearchParams();
  if (row !== NOBODY) {
    said.set('run', nameOf(data, row));
    said.set('latent', data.id[row]);
  }
  if (state.runs.size < data.runs.length) {
    const kept = data.runs.filter((_, r) => state.runs.has(r)).map((run) => run.name);
    for (const name of kept.length ? kept : ['']) said.append('only', name);
  }
  if (state.matched !== NO_FILTER.matched) said.set('partner', state.matched);
  if (state.threshold !== NO_FILTER.threshold) said.set('from', state.threshold.toFixed(2));
  if (state.counting !== NO_FILTER.counting) said.set('counting', state.counting);
  if (state.region !== NO_FILTER.region) said.set('region', data.regions[Number(state.region) - 1]?.letter ?? '');
  if (state.color !== 'run') said.set('color', state.color);
  if (state.word !== null) said.set('word', state.word);
  if (state.word !== null && state.wordRun >= 0) said.set('in', data.runs[state.wordRun].name);
  const text = said.toString();
  return text && `#${text}`;
}

// Write the filters into the address once they stop changing: browsers limit how often the address may change.
let resting;
function noteAddress() {
  const before = location.hash;
  clearTimeout(resting);
  resting = setTimeout(() => {
    const now = addressOf(state.row);
    if (location.hash === before && now !== before) history.replaceState(null, '', now || '#');
  }, 200);
  showClear();
}

const runNamed = (name) => data.runs.findIndex((run) => run.name === name);

// An address without filters leaves the current ones unchanged.
function applyFilters(asked) {
  if (!FILTERS.some((key) => asked.has(key))) return;
  const one = (key, known) => (known.includes(asked.get(key)) ? asked.get(key) : null);
  const from = Number(asked.get('from') ?? NO_FILTER.threshold);
  const region = data.regions.findIndex((r) => r.letter === asked.get('region')) + 1;
  const only = asked.getAll('only'), kept = only.map(runNamed).filter((r) => r >= 0);
  Object.assign(state, NO_FILTER, {
    runs: new Set(kept.length || only.includes('') ? kept : data.runs.keys()),
    matched: one('partner', ['yes', 'no']) ?? NO_FILTER.matched,
    threshold: from >= 0 && from <= 1 ? from : NO_FILTER.threshold,
    counting: one('counting', ['single']) ?? NO_FILTER.counting,
    region: region || asked.get('region') === '' ? String(region) : NO_FILTER.region,
    color: one('color', Object.keys(ways)) ?? 'run',
  });
  showFilters();
  if (asked.get('word')) findWord(asked.get('word'), runNamed(asked.get('in')));
}

function followAddress() {
  if (location.hash === addressOf(state.row)) return;
  const asked = new URLSearchParams(location.hash.slice(1));
  applyFilters(asked);
  if (!asked.has('latent')) return letGo({ address: false });
  const name = asked.get('run');
  const run = name === null ? (data.many ? -1 : 0) : runNamed(name);
  if (run < 0) {
    letGo({ address: false });
    return answer(name === null ? 'The address does not name a run: #run=NAME&latent=ID.' : `There is no run ${name} here.`);
  }
  find(asked.get('latent'), run, { address: false });
}
