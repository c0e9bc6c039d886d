// Fill, show and clear the controls.

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

const option = (value, text) => make('option', { value }, text);

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
  for (const id of ['matched', 'pairs', 'runs']) byId(id).hidden = !data.many;
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

// Set the controls to the current filters and coloring.
function showFilters() {
  document.querySelector(`input[name=matched][value=${state.matched}]`).checked = true;
  for (const id of ['threshold', 'counting', 'region', 'color']) byId(id).value = state[id];
  showThreshold();
  showRuns();
  redrawSoon();
}

function showThreshold() {
  byId('threshold-value').textContent = state.threshold.toFixed(2);
}

function clearFilters() {
  Object.assign(state, NO_FILTER, { runs: new Set(data.runs.keys()) });
  answer('');
  showFilters();
}

// Restore the state in which the page opened: no selection, lasso, search or filter, and the whole picture in view.
function clearEverything() {
  byId('wanted').value = '';
  byId('wanted-run').selectedIndex = 0;
  state.color = 'run';
  clearFilters();
  dropCatch();
  setLasso(false);
  letGo();
  showWhole();
  say('Everything cleared.');
}

function showClear() {
  byId('clear').hidden = !addressOf(state.row) && !state.caught.length;
}
