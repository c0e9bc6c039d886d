// The page: what is selected and filtered, and the wires between the controls and the picture.

const byId = (id) => document.getElementById(id);
const state = { row: NOBODY, caught: [], runs: null, matched: 'all', threshold: 0.7, counting: 'nearest', region: 'all', color: 'run', word: null, lit: null };
let data, ways;

const matched = (i) => (state.counting === 'single' ? data.bestSingle : data.best).cosine[i] >= state.threshold;

function passes(i) {
  if (!state.runs.has(data.run[i])) return false;
  if (state.lit && !state.lit.has(i)) return false;
  if (state.matched !== 'all' && matched(i) !== (state.matched === 'yes')) return false;
  return state.region === 'all' || data.region[i] === Number(state.region);
}

// ---- drawing anew ----

function redraw() {
  showPoints(data, passes, ways[state.color].color);
  showRegions(data, state.region === 'all' ? null : data.regions[Number(state.region) - 1]);
  showLegend(ways[state.color], byId('legend'));
  let n = 0;
  for (let i = 0; i < data.n; i++) if (passes(i)) n++;
  byId('shown').textContent = n === data.n ? `all ${count(n)} shown` : `${count(n)} of ${count(data.n)} shown`;
  byId('clear').hidden = n === data.n && state.matched === 'all' && state.region === 'all' && !state.lit;
  byId('tip').hidden = true;
}

// Once a frame however fast the slider moves.
let waiting = false;
function redrawSoon() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    redraw();
    if (state.row !== NOBODY) showCard();
    if (!byId('caught').hidden) showCatch();
  });
}

function showCard() {
  const into = byId('chosen');
  if (state.row === NOBODY) return showNobody(into, starts());
  showLatent(data, state.row, into, {
    go: (row) => { select(row); byId('chosen').querySelector('.to')?.focus({ preventScroll: true }); },
    leave: () => { letGo(); picture.div.focus({ preventScroll: true }); },
    hidden: !passes(state.row),
    matchedFrom: state.threshold,
  });
}

function starts() {
  const extreme = (better) => {
    let best = NOBODY;
    for (let i = 0; i < data.n; i++) {
      if (!Number.isNaN(data.best.cosine[i]) && (best === NOBODY || better(data.best.cosine[i], data.best.cosine[best]))) best = i;
    }
    return best;
  };
  const any = ['any latent', () => select(Math.floor(Math.random() * data.n))];
  if (!data.many) return [any];
  return [
    ['the surest match', () => select(extreme((a, b) => a > b))],
    ['the loneliest', () => select(extreme((a, b) => a < b))],
    any,
  ];
}

function showCatch() {
  showCaught(data, state.caught, byId('caught'), {
    matched,
    save: () => download('latents.csv', csvOf(data, state.caught)),
    leave: () => { byId('caught').hidden = true; state.caught = []; },
  });
}

// ---- selecting ----

function select(row, { address = true } = {}) {
  state.row = row;
  showSelected(data, row);
  showCard();
  const partners = partnersOf(data, row).flatMap((p) => [p.nearest, p.single]).filter((i) => i !== NOBODY);
  bringIntoView(data, [row, ...partners]);
  say(`Selected latent ${data.id[row]} of ${nameOf(data, row)}. ${inWords(row)}`);
  if (address && location.hash !== linkOf(data, row)) location.hash = linkOf(data, row);
}

function inWords(row) {
  const p = bestPartner(data, row);
  if (!p) return '';
  return `Best match: ${latentIn(data, p.nearest, p.run)}, cosine ${three(p.cosine)}, ${p.mutual ? 'mutual' : 'not mutual'}.`;
}

function letGo({ address = true } = {}) {
  if (state.row === NOBODY) return;
  state.row = NOBODY;
  showSelected(data, NOBODY);
  showCard();
  say('Nothing selected.');
  if (address && location.hash) location.hash = '';
}

function say(text) {
  byId('said').textContent = text;
}

// #run=NAME&latent=ID
function followAddress() {
  if (state.row !== NOBODY && location.hash === linkOf(data, state.row)) return;
  const asked = new URLSearchParams(location.hash.slice(1));
  if (!asked.has('latent')) return letGo({ address: false });
  const name = asked.get('run');
  const run = name === null ? (data.many ? -1 : 0) : data.runs.findIndex((r) => r.name === name);
  if (run < 0) {
    letGo({ address: false });
    return answer(name === null ? 'The address does not say of which run: #run=NAME&latent=ID.' : `There is no run ${name} here.`);
  }
  find(asked.get('latent'), run, { address: false });
}

// Select a latent by its id, of one run or (run −1) of the first that has it; say what else has it, or that none does.
function find(text, run, options) {
  const id = /^\s*\d+\s*$/.test(text) ? Number(text) : NaN;
  const found = data.runs.flatMap((_, r) => ((run < 0 || r === run) && data.rows[r].has(id) ? [data.rows[r].get(id)] : []));
  if (!found.length) {
    letGo(options);
    const where = run < 0 ? 'in any run' : `in ${data.runs[run].name}`;
    return answer(Number.isNaN(id) ? 'A latent id is a number, such as 123.' : `There is no latent ${id} ${where}: dead ones are left out.`);
  }
  answer('');
  if (found[0] !== state.row) select(found[0], options);
  if (found.length > 1) {
    const others = found.slice(1).map((row) =>
      make('button', { type: 'button', className: 'link', onclick: () => select(row) }, nameOf(data, row)));
    answer(`Shown of ${nameOf(data, found[0])}; also in `, ...others);
  }
}

function answer(...parts) {
  byId('answer').replaceChildren(...parts);
}

// ---- controls ----

function icon(paths) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 20 20');
  svg.setAttribute('aria-hidden', 'true');
  for (const d of paths) {
    const line = document.createElementNS('http://www.w3.org/2000/svg', 'path');
    line.setAttribute('d', d);
    svg.append(line);
  }
  return svg;
}

const ICONS = {
  lasso: 'M10 3.5c4.2 0 7 2 7 4.6s-2.8 4.6-7 4.6-7-2-7-4.6 2.8-4.6 7-4.6zM6.2 12.3c-1 .9-.9 2.3.2 2.7 1.3.4 1.7 1.3.9 2.5',
  closer: 'M10 4v12M4 10h12',
  farther: 'M4 10h12',
  whole: 'M4 8V4h4M12 4h4v4M16 12v4h-4M8 16H4v-4',
  theme: ['M10 3a7 7 0 1 0 0 14a7 7 0 0 0 0-14z', 'M10 3a7 7 0 0 1 0 14z'],
};

function option(value, text) {
  return make('option', { value }, text);
}

function fillControls() {
  for (const [id, path] of Object.entries(ICONS)) byId(id).append(icon([path].flat()));
  byId('color').append(...Object.entries(ways).map(([key, way]) => option(key, way.label)));
  byId('wanted-run').append(...(data.many ? [option(-1, 'any run')] : []), ...data.runs.map((run, r) => option(r, run.name)));
  byId('region').append(
    option('all', 'all'),
    ...data.regions.map((r, i) => option(i + 1, [r.letter, r.verdict, count(r.size ?? 0), (r.tokens ?? []).slice(0, 3).map(quoted).join(' ')].filter(Boolean).join(' · '))),
    option(0, 'outside all regions'),
  );
  if (data.labeled) {
    byId('wanted').placeholder = 'id or word';
    document.querySelector('label[for=wanted]').textContent = 'Latent, token or word';
  }
  byId('matched').hidden = !data.many;
  byId('runs').hidden = !data.many;
  byId('regions').hidden = !data.regions.length;
  showRuns();
}

function showRuns() {
  const boxes = data.runs.map((run, r) =>
    make('label', { className: 'run' },
      make('input', { type: 'checkbox', checked: state.runs.has(r), onchange: (event) => keepRun(r, event.target.checked) }),
      swatch(runColor(r)), make('span', { className: 'name' }, run.name), make('span', { className: 'muted' }, count(run.count))));
  byId('runs').replaceChildren(byId('runs').querySelector('legend'), ...boxes);
}

function keepRun(run, kept) {
  if (kept) state.runs.add(run);
  else state.runs.delete(run);
  redrawSoon();
}

function clearFilters() {
  Object.assign(state, { runs: new Set(data.runs.keys()), matched: 'all', region: 'all', word: null, lit: null });
  answer('');
  document.querySelector('input[name=matched][value=all]').checked = true;
  byId('region').value = 'all';
  showRuns();
  redrawSoon();
}

function showThreshold() {
  byId('threshold-value').textContent = state.threshold.toFixed(2);
}

function setLasso(on) {
  byId('rope').hidden = !on;
  byId('lasso').setAttribute('aria-pressed', String(on));
}

function caught(rows) {
  state.caught = rows;
  setLasso(false);
  showCatch();
  say(`${count(rows.length)} latents in the lasso.`);
  byId('caught').scrollIntoView({ block: 'nearest' });
}

function wireControls() {
  const on = (id, event, act) => byId(id).addEventListener(event, act);
  on('color', 'change', (e) => { state.color = e.target.value; redrawSoon(); });
  on('search', 'submit', (e) => {
    e.preventDefault();
    const text = byId('wanted').value, run = Number(byId('wanted-run').value);
    if (data.labeled && text.trim() && !/^\s*\d+\s*$/.test(text)) findWord(text, run);
    else find(text, run);
  });
  on('region', 'change', (e) => { state.region = e.target.value; redrawSoon(); });
  on('counting', 'change', (e) => { state.counting = e.target.value; redrawSoon(); });
  on('threshold', 'input', (e) => { state.threshold = Number(e.target.value); showThreshold(); redrawSoon(); });
  for (const radio of document.querySelectorAll('input[name=matched]')) {
    radio.addEventListener('change', () => { state.matched = radio.value; redrawSoon(); });
  }
  on('clear', 'click', clearFilters);
  on('lasso', 'click', () => setLasso(byId('rope').hidden));
  on('closer', 'click', () => zoom(1.5));
  on('farther', 'click', () => zoom(1 / 1.5));
  on('whole', 'click', showWhole);
  on('theme', 'click', () => setTheme(theme() === 'dark' ? 'light' : 'dark', true));
  addEventListener('hashchange', followAddress);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => setTheme(preferred()));
}

function wirePicture() {
  watchPoints((row) => {
    if (row === NOBODY) byId('tip').hidden = true;
    else showTip(row);
  }, select);
  picture.div.on('plotly_relayouting', () => { byId('tip').hidden = true; });
  picture.div.on('plotly_doubleclick', () => { if (!justPinched()) showWhole(); });
  watchPinch();
  watchLasso(data, caught);
}

function showTip(i) {
  const tip = byId('tip');
  tip.replaceChildren(...tipOf(data, i));
  tip.hidden = false;
  const [x, y] = pixelOf(data.x[i], data.y[i]);
  const room = byId('frame').getBoundingClientRect();
  const { width, height } = tip.getBoundingClientRect();
  const left = x + 14 + width > room.width ? x - 14 - width : x + 14;
  tip.style.left = `${Math.max(4, Math.min(left, room.width - width - 4))}px`;
  tip.style.top = `${Math.max(4, Math.min(y - height / 2, room.height - height - 4))}px`;
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

function wireKeys() {
  picture.div.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = keyAct(event);
    if (!act) return;
    event.preventDefault();
    act();
  });
  addEventListener('keydown', (event) => {
    if (event.key === 'Escape') {
      if (!byId('rope').hidden) setLasso(false);
      else letGo();
    }
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === '/' && !typing && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      byId('wanted').focus();
      byId('wanted').select();
    }
  });
}

function keyAct(event) {
  const arrow = ARROWS[event.key];
  if (arrow) return event.shiftKey ? () => pan(0.15 * arrow[0], 0.15 * arrow[1]) : () => step(arrow);
  return {
    '+': () => zoom(1.5),
    '=': () => zoom(1.5),
    '-': () => zoom(1 / 1.5),
    '0': showWhole,
    l: () => setLasso(byId('rope').hidden),
    a: () => caught(picture.shown.filter((i) => inView(data, i))),
    Enter: follow,
  }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
}

function step(direction) {
  const { x, y } = view();
  const middle = [(x[0] + x[1]) / 2, (y[0] + y[1]) / 2];
  const from = state.row === NOBODY ? middle : [data.x[state.row], data.y[state.row]];
  const row = nextPoint(data, from, direction);
  if (row !== NOBODY) select(row);
}

function follow() {
  if (state.row === NOBODY) return;
  const best = bestPartner(data, state.row);
  if (best && best.nearest !== NOBODY) select(best.nearest);
}

// ---- light and dark ----

const preferred = () => (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  byId('theme').setAttribute('aria-pressed', String(name === 'dark'));
  if (!data) return;
  showRuns();
  redraw();
  showSelected(data, state.row);
  showCard();
  if (!byId('caught').hidden) showCatch();
}

// ---- start ----

async function start() {
  document.documentElement.dataset.theme = preferred();
  if (matchMedia('(max-width: 820px)').matches) byId('filters').open = false;
  if (typeof DecompressionStream === 'undefined') {
    throw new Error('This browser is too old for this page: any from 2023 on will do.');
  }
  const code = await unpacked('plotly-packed');
  const script = make('script', { textContent: new TextDecoder().decode(code) });
  document.head.append(script);
  data = await readData();
  state.runs = new Set(data.runs.keys());
  ways = colorings(data, matched);
  showAbout(data);
  fillControls();
  showThreshold();
  await drawPicture(data);
  wireControls();
  wirePicture();
  wireKeys();
  setTheme(preferred());
  followAddress();
  document.body.dataset.ready = '';
}

// For the console: `await explorer.ready; explorer.find('123', 0)`.
window.explorer = {
  ready: start().catch((error) => {
    byId('picture').replaceChildren(make('p', { id: 'loading', role: 'alert' }, String(error.message ?? error)));
    throw error;
  }),
  find,
  findWord,
  pixelOf: (run, id) => {
    const row = data.rows[data.runs.findIndex((r) => r.name === run)]?.get(id);
    return row === undefined ? null : pixelOf(data.x[row], data.y[row]);
  },
};
