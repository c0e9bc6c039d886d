// The picture: plotly draws the points in one WebGL trace, with partners and the selection above them.

const BEHIND = 0, POINTS = 1, OUTLINES = 2, NEAREST = 3, SINGLE = 4, ENDS = 5;
// Without WebGL points are drawn as SVG, and no more of them than that bears. Rows are shuffled: the first are a sample.
const MOST_WITHOUT_WEBGL = 4000;
const MARGIN = 0.04;

const picture = { div: null, home: null, shown: [], webgl: true, limit: Infinity, pinched: -Infinity };

function hasWebgl() {
  try {
    const context = document.createElement('canvas').getContext('webgl');
    context?.getExtension('WEBGL_lose_context')?.loseContext();
    return Boolean(context);
  } catch {
    return false;
  }
}

async function drawPicture(data) {
  picture.div = document.getElementById('picture');
  picture.home = wholeRange(data);
  document.getElementById('loading').remove();
  await drawWith(data, hasWebgl());
  // There may be a WebGL that plotly cannot use: it then says so in the place of the picture.
  if (picture.webgl && picture.div.querySelector('.no-webgl')) {
    Plotly.purge(picture.div);
    await drawWith(data, false);
  }
  new ResizeObserver(fitFrame).observe(picture.div);
}

async function drawWith(data, webgl) {
  picture.webgl = webgl;
  picture.limit = webgl ? Infinity : MOST_WITHOUT_WEBGL;
  const type = webgl ? 'scattergl' : 'scatter';
  const { width, height } = picture.div.getBoundingClientRect();
  const size = Math.min(9, Math.max(2.2, 0.38 * Math.sqrt((width * height) / data.n)));
  // One point to begin with: with none plotly does not try WebGL.
  const dots = { type, mode: 'markers', hoverinfo: 'none', x: [data.x[0]], y: [data.y[0]] };
  const lines = { type: 'scatter', mode: 'lines', hoverinfo: 'skip', x: [], y: [] };
  const traces = [
    { ...dots, uid: 'behind', hoverinfo: 'skip', marker: { size } },
    { ...dots, uid: 'points', marker: { size, opacity: data.n > 4000 ? 0.75 : 0.85, line: { width: 0 } } },
    { ...lines, line: { width: 1, dash: 'dot' } },
    { ...lines, line: { width: 2.5 } },
    { ...lines, line: { width: 2.5, dash: '5px,4px' } },
    { type: 'scatter', mode: 'markers', hoverinfo: 'skip', x: [], y: [], marker: { size, opacity: 1, line: { width: 2 } } },
  ];
  const axis = { visible: false, fixedrange: false, zeroline: false };
  const layout = {
    margin: { l: 0, r: 0, t: 0, b: 0 },
    xaxis: { ...axis, range: [...picture.home.x] },
    yaxis: { ...axis, range: [...picture.home.y], scaleanchor: 'x' },
    paper_bgcolor: 'rgba(0,0,0,0)',
    plot_bgcolor: 'rgba(0,0,0,0)',
    dragmode: 'pan',
    hovermode: 'closest',
    hoverdistance: 10,
    showlegend: false,
    annotations: [],
  };
  await Plotly.newPlot(picture.div, traces, layout, { displayModeBar: false, scrollZoom: true, doubleClick: false });
}

// The frame has another size: where all was in view, all stays in view.
async function fitFrame() {
  const { x, y } = view();
  const { home } = picture;
  const whole = x[0] <= home.x[0] && x[1] >= home.x[1] && y[0] <= home.y[0] && y[1] >= home.y[1];
  const { width, height } = picture.div.getBoundingClientRect();
  if (!width || !height || (width === axes().width && height === axes().height)) return;
  await Plotly.relayout(picture.div, { width, height });
  if (whole) showWhole();
}

function wholeRange(data) {
  const bounds = (values) => {
    let low = Infinity, high = -Infinity;
    for (const v of values) {
      low = Math.min(low, v);
      high = Math.max(high, v);
    }
    const room = Math.max(high - low, 1e-6) * MARGIN;
    return [low - room, high + room];
  };
  return { x: bounds(data.x), y: bounds(data.y) };
}

// Show these rows in these colours; the others, where there are any, stay behind them as faint dots.
function showPoints(data, passes, color) {
  const n = Math.min(data.n, picture.limit);
  const shown = [];
  const hidden = [];
  for (let i = 0; i < n; i++) (passes(i) ? shown : hidden).push(i);
  const at = (rows, values) => Float32Array.from(rows, (i) => values[i]);
  picture.shown = shown;
  return Plotly.restyle(
    picture.div,
    {
      x: [at(hidden, data.x), at(shown, data.x)],
      y: [at(hidden, data.y), at(shown, data.y)],
      'marker.color': [palette().behind, shown.map(color)],
    },
    [BEHIND, POINTS],
  );
}

// Letters always; the outline of one region, or of none.
function showRegions(data, outlined) {
  const { ink, paper } = palette();
  const annotations = data.regions.map((region) => ({
    x: region.center[0],
    y: region.center[1],
    text: escaped(region.letter),
    showarrow: false,
    captureevents: false,
    borderpad: 1,
    font: { size: 12, color: ink, weight: 650, shadow: `0 0 3px ${paper}, 0 0 3px ${paper}, 0 0 4px ${paper}, 0 0 5px ${paper}` },
  }));
  const corners = outlined?.outline?.length ? [...outlined.outline, outlined.outline[0]] : [];
  return Plotly.update(
    picture.div,
    { x: [corners.map((c) => c[0])], y: [corners.map((c) => c[1])], 'line.color': ink },
    { annotations },
    [OUTLINES],
  );
}

// plotly reads a little markup in texts; a region may have a name given by hand.
const escaped = (text) => String(text).replace(/[&<>]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[c]);

// A ring around the selected latent, and lines to its partners: solid to the nearest, dashed to the one-to-one partner
// where that is another.
function showSelected(data, row) {
  const line = { nearest: { x: [], y: [] }, single: { x: [], y: [] } };
  const ends = new Set();
  if (row !== NOBODY) {
    for (const p of partnersOf(data, row)) {
      for (const [kind, end] of [['nearest', p.nearest], ['single', p.single]]) {
        if (end === NOBODY || (kind === 'single' && end === p.nearest)) continue;
        line[kind].x.push(data.x[row], data.x[end], null);
        line[kind].y.push(data.y[row], data.y[end], null);
        ends.add(end);
      }
    }
  }
  const rings = row === NOBODY ? [] : [row, ...ends];
  picture.div.classList.toggle('chosen', row !== NOBODY);
  const { nearest, single, ink } = palette();
  const base = picture.div.data[POINTS].marker.size;
  return Plotly.restyle(
    picture.div,
    {
      x: [line.nearest.x, line.single.x, rings.map((i) => data.x[i])],
      y: [line.nearest.y, line.single.y, rings.map((i) => data.y[i])],
      'line.color': [nearest, single, undefined],
      'marker.color': [undefined, undefined, rings.map((i) => runColor(data.run[i]))],
      'marker.line.color': [undefined, undefined, ink],
      'marker.size': [undefined, undefined, rings.map((i) => base + (i === row ? 9 : 5))],
    },
    [NEAREST, SINGLE, ENDS],
  );
}

// ---- where things are ----

const axes = () => picture.div._fullLayout;

function pixelOf(x, y) {
  const { xaxis, yaxis } = axes();
  return [xaxis._offset + xaxis.d2p(x), yaxis._offset + yaxis.d2p(y)];
}

function pointAt(px, py) {
  const { xaxis, yaxis } = axes();
  return [xaxis.p2d(px - xaxis._offset), yaxis.p2d(py - yaxis._offset)];
}

function view() {
  const { xaxis, yaxis } = axes();
  return { x: [...xaxis.range], y: [...yaxis.range] };
}

function inView(data, i) {
  const { x, y } = view();
  return data.x[i] >= x[0] && data.x[i] <= x[1] && data.y[i] >= y[0] && data.y[i] <= y[1];
}

// Copies: plotly writes into the ranges it is given.
const setView = ({ x, y }) => Plotly.relayout(picture.div, { 'xaxis.range': [...x], 'yaxis.range': [...y] });

// Zoom by a factor (above 1: closer) about a point of the data, the middle by default.
function zoom(factor, about) {
  const { x, y } = view();
  const [cx, cy] = about ?? [(x[0] + x[1]) / 2, (y[0] + y[1]) / 2];
  const around = (range, c) => range.map((v) => c + (v - c) / factor);
  return setView({ x: around(x, cx), y: around(y, cy) });
}

function pan(right, up) {
  const { x, y } = view();
  const moved = (range, share) => range.map((v) => v + share * (range[1] - range[0]));
  return setView({ x: moved(x, right), y: moved(y, up) });
}

const showWhole = () => setView(picture.home);

// Bring all these rows into view, moving and zooming out only as far as that takes.
function bringIntoView(data, rows) {
  if (rows.every((i) => inView(data, i))) return;
  const { x, y } = view();
  const fit = (range, values) => {
    const low = Math.min(...values), high = Math.max(...values);
    const width = Math.max(range[1] - range[0], (high - low) * 1.25);
    const middle = (low + high) / 2;
    return [middle - width / 2, middle + width / 2];
  };
  setView({ x: fit(x, rows.map((i) => data.x[i])), y: fit(y, rows.map((i) => data.y[i])) });
}

// The shown point nearest to `from` in a direction, as the arrow keys mean it: within 45° of it.
function nextPoint(data, from, [dx, dy]) {
  let best = NOBODY, least = Infinity;
  for (const i of picture.shown) {
    const x = data.x[i] - from[0], y = data.y[i] - from[1];
    const along = x * dx + y * dy, across = Math.abs(x * dy - y * dx);
    const far = x * x + y * y;
    if (along <= 0 || across > along || far >= least) continue;
    best = i;
    least = far;
  }
  return best;
}

// Two fingers zoom and move; plotly knows one, and takes the end of a pinch for a click.
const justPinched = () => performance.now() - picture.pinched < 500;

function watchPinch() {
  let before = null;
  const fingers = (event) => {
    const box = picture.div.getBoundingClientRect();
    const [a, b] = [...event.touches].map((t) => [t.clientX - box.left, t.clientY - box.top]);
    return { apart: Math.hypot(a[0] - b[0], a[1] - b[1]), middle: [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2] };
  };
  picture.div.addEventListener('touchstart', (event) => {
    if (event.touches.length !== 2) return;
    event.preventDefault();
    event.stopPropagation();
    before = fingers(event);
  }, { capture: true, passive: false });
  picture.div.addEventListener('touchmove', (event) => {
    if (event.touches.length !== 2 || !before) return;
    event.preventDefault();
    event.stopPropagation();
    const now = fingers(event);
    const held = pointAt(...before.middle), under = pointAt(...now.middle);
    const factor = now.apart / Math.max(before.apart, 1);
    const { x, y } = view();
    const moved = (range, h, u) => range.map((v) => h + (v - u) / factor);
    setView({ x: moved(x, held[0], under[0]), y: moved(y, held[1], under[1]) });
    before = now;
  }, { capture: true, passive: false });
  picture.div.addEventListener('touchend', () => {
    if (before) picture.pinched = performance.now();
    before = null;
  }, { capture: true });
}
