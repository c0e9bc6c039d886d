// The page: its selection and filters, and the event handlers between the controls and the picture.

const byId = (id) => document.getElementById(id);
const NO_FILTER = { matched: 'all', threshold: 0.7, counting: 'nearest', region: 'all', word: null, wordRun: -1, lit: null };
const state = { row: NOBODY, caught: [], runs: null, color: 'run', ...NO_FILTER };
let data, ways;

const matched = (i) => (state.counting === 'single' ? data.bestSingle : data.best).cosine[i] >= state.threshold;

function passes(i) {
  if (!state.runs.has(data.run[i])) return false;
  if (state.lit && !state.lit.has(i)) return false;
  if (state.matched !== 'all' && matched(i) !== (state.matched === 'yes')) return false;
  return state.region === 'all' || data.region[i] === Number(state.region);
}

// ---- drawing ----

function redraw() {
  showPoints(data, passes, ways[state.color].color, state.caught);
  showRegions(data, state.region === 'all' ? null : data.regions[Number(state.region) - 1]);
  showLegend(ways[state.color], byId('legend'));
  const n = picture.shown.length;
  byId('shown').textContent = n === data.n ? `all ${count(n)} shown` : `${count(n)} of ${count(data.n)} shown`;
  byId('tip').hidden = true;
  if (byId('pairs').open) showPairs(data, picture.shown, state.counting === 'single', select);
  noteAddress();
}

// Redraw at most once per frame, however fast the slider moves.
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
  const { slot, cosine } = data.best;
  const extreme = (better) => [...slot.keys()].filter((i) => slot[i] !== NOBODY).reduce((best, i) => (better(cosine[i], cosine[best]) ? i : best));
  const any = ['any latent', () => select(Math.floor(Math.random() * data.n))];
  if (!data.many) return [any];
  return [
    ['the best match', () => select(extreme((a, b) => a > b))],
    ['the least similar latent', () => select(extreme((a, b) => a < b))],
    any,
  ];
}

function showCatch() {
  showCaught(data, state.caught, byId('caught'), {
    matched,
    save: () => download('latents.csv', csvOf(data, state.caught)),
    leave: dropCatch,
  });
}

function dropCatch() {
  byId('caught').hidden = true;
  state.caught = [];
  redrawSoon();
}

// ---- selecting ----

function select(row, { address = true } = {}) {
  state.row = row;
  showSelected(data, row);
  showCard();
  const partners = partnersOf(data, row).flatMap((p) => [p.nearest, p.single]).filter((i) => i !== NOBODY);
  bringIntoView(data, [row, ...partners]);
  say(`Selected latent ${data.id[row]} of ${nameOf(data, row)}. ${inWords(row)}`);
  if (address && location.hash !== addressOf(row)) location.hash = addressOf(row);
  showClear();
}

function inWords(row) {
  const p = bestPartner(data, row);
  if (!p) return '';
  return `Best match: ${latentIn(data, p.nearest, p.run)}, cosine ${three(p.cosine)}, ${judged(p)}.`;
}

function letGo({ address = true } = {}) {
  if (state.row === NOBODY) return;
  state.row = NOBODY;
  showSelected(data, NOBODY);
  showCard();
  say('Nothing selected.');
  if (address && location.hash !== addressOf(NOBODY)) location.hash = addressOf(NOBODY);
  showClear();
}

function say(text) {
  byId('said').textContent = text;
}

// Select a latent by its id, in one run or (run −1) in the first that has it; list the other runs that have the id.
function find(text, run, options) {
  const id = /^\s*\d+\s*$/.test(text) ? Number(text) : NaN;
  const found = data.runs.flatMap((_, r) => ((run < 0 || r === run) && data.rows[r].has(id) ? [data.rows[r].get(id)] : []));
  if (!found.length) {
    letGo(options);
    const where = run < 0 ? 'in any run' : `in ${data.runs[run].name}`;
    return answer(Number.isNaN(id) ? 'A latent id is a number, such as 123.' : `There is no latent ${id} ${where}; dead latents are left out.`);
  }
  answer('');
  if (found[0] !== state.row) select(found[0], options);
  if (found.length > 1) {
    const others = found.slice(1).map((row) =>
      make('button', { type: 'button', className: 'link', onclick: () => select(row) }, nameOf(data, row)));
    answer(`Showing the one in ${nameOf(data, found[0])}; also in `, ...others);
  }
}

function answer(...parts) {
  byId('answer').replaceChildren(...parts);
}

// ---- controls ----

function setLasso(on) {
  byId('rope').hidden = !on;
  byId('lasso').setAttribute('aria-pressed', String(on));
}

function caught(rows) {
  state.caught = rows;
  setLasso(false);
  showCatch();
  redrawSoon();
  say(`In the lasso: ${count(rows.length)} latent${rows.length === 1 ? '' : 's'}.`);
  byId('caught').scrollIntoView({ block: 'nearest' });
}

function wireControls() {
  const on = (id, event, act) => byId(id).addEventListener(event, act);
  on('color', 'change', (e) => { state.color = e.target.value; redrawSoon(); });
  on('search', 'submit', (e) => {
    e.preventDefault();
    const text = byId('wanted').value, run = Number(byId('wanted-run').value);
    const isNumber = /^\s*\d+\s*$/.test(text);
    if (data.labeled && text.trim() && !isNumber) return findWord(text, run);
    find(text, run);
    if (isNumber) offerWord(text, run);
  });
  on('region', 'change', (e) => { state.region = e.target.value; redrawSoon(); });
  on('counting', 'change', (e) => { state.counting = e.target.value; redrawSoon(); });
  on('threshold', 'input', (e) => { state.threshold = Number(e.target.value); showThreshold(); redrawSoon(); });
  for (const radio of document.querySelectorAll('input[name=matched]')) {
    radio.addEventListener('change', () => { state.matched = radio.value; redrawSoon(); });
  }
  on('clear', 'click', clearEverything);
  on('pairs', 'toggle', redrawSoon);
  on('lasso', 'click', () => setLasso(byId('rope').hidden));
  on('closer', 'click', () => zoom(1.5));
  on('farther', 'click', () => zoom(1 / 1.5));
  on('whole', 'click', showWhole);
  on('theme', 'click', () => setTheme(theme() === 'dark' ? 'light' : 'dark'));
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
    throw new Error('This browser is too old for this page; use one from 2023 or later.');
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
