// The picture: points on our own canvas; above it, plotly draws partners, selection and letters, and handles the view.
// plotly's own WebGL points compile functions at run time, which the page's policy forbids.

const OUTLINES = 0, NEAREST = 1, SINGLE = 2, ENDS = 3;
const MARGIN = 0.04;
const REACH = 10; // pixels around a point within which it can be clicked or touched

const picture = { div: null, dots: null, data: null, home: null, shown: [], layers: [], size: 0, asked: false, pinched: -Infinity };

async function drawPicture(data) {
  picture.div = document.getElementById('picture');
  picture.dots = document.getElementById('dots');
  picture.data = data;
  picture.home = wholeRange(data);
  document.getElementById('loading').remove();
  const { width, height } = picture.div.getBoundingClientRect();
  const size = Math.min(9, Math.max(2.2, 0.38 * Math.sqrt((width * height) / data.n)));
  picture.size = size;
  const lines = { type: 'scatter', mode: 'lines', hoverinfo: 'skip', x: [], y: [] };
  const traces = [
    { ...lines, line: { width: 1, dash: 'dot' } },
    { ...lines, line: { width: 2.5 } },
    { ...lines, line: { width: 2.5, dash: '5px,4px' } },
    { type: 'scatter', mode: 'markers', hoverinfo: 'skip', x: [], y: [], marker: { size, opacity: 1, line: { width: 2 } } },
  ];
  const axis = { type: 'linear', visible: false, fixedrange: false, zeroline: false };
  const layout = {
    margin: { l: 0, r: 0, t: 0, b: 0 },
    xaxis: { ...axis, range: [...picture.home.x] },
    yaxis: { ...axis, range: [...picture.home.y], scaleanchor: 'x' },
    paper_bgcolor: 'rgba(0,0,0,0)',
    plot_bgcolor: 'rgba(0,0,0,0)',
    dragmode: 'pan',
    hovermode: false,
    showlegend: false,
    annotations: [],
  };
  await Plotly.newPlot(picture.div, traces, layout, { displayModeBar: false, scrollZoom: true, doubleClick: false });
  picture.div.on('plotly_relayouting', drawDots);
  picture.div.on('plotly_relayout', drawDots);
  picture.div.on('plotly_afterplot', drawDots);
  new ResizeObserver(fitFrame).observe(picture.div);
}

// ---- points ----

// Draw the points with the next frame, once however often this is called until then.
function drawDots() {
  if (picture.asked) return;
  picture.asked = true;
  requestAnimationFrame(() => {
    picture.asked = false;
    paint();
  });
}

// Red, green, blue and opacity of a color, 0…255.
function channelsOf(color) {
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 1;
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.fillStyle = color;
  context.fillRect(0, 0, 1, 1);
  return context.getImageData(0, 0, 1, 1).data;
}

// The pixels of a dot relative to its center, and the share of each that it covers, 0…1.
function discOf(radius) {
  const dx = [], dy = [], share = [];
  const reach = Math.ceil(radius + 0.5);
  for (let down = -reach; down <= reach; down++) {
    for (let right = -reach; right <= reach; right++) {
      const covered = Math.min(1, radius + 0.5 - Math.hypot(right, down));
      if (covered <= 0) continue;
      dx.push(right);
      dy.push(down);
      share.push(covered);
    }
  }
  return { dx, dy, share };
}

// Paint the layers from back to front; each has rows, an opacity, a color per row and an increase in size. Pixels are
// written one by one, since a canvas takes far longer to draw a hundred thousand small shapes.
function paint() {
  const { data, dots, layers } = picture;
  const scale = devicePixelRatio || 1;
  const width = (dots.width = Math.round(axes().width * scale));
  const height = (dots.height = Math.round(axes().height * scale));
  const context = dots.getContext('2d');
  const image = context.createImageData(width, height);
  const pixels = image.data;
  const { x, y } = view();
  const perX = width / (x[1] - x[0]), perY = height / (y[1] - y[0]);
  for (const { rows, opacity, color, more = 0 } of layers) {
    const known = new Map();
    const { dx, dy, share } = discOf((picture.size / 2 + more) * scale);
    for (let at = 0; at < rows.length; at++) {
      const left = Math.round((data.x[rows[at]] - x[0]) * perX), top = Math.round((y[1] - data.y[rows[at]]) * perY);
      if (left < -20 || top < -20 || left > width + 20 || top > height + 20) continue;
      const fill = color(at);
      if (!known.has(fill)) known.set(fill, channelsOf(fill));
      const [red, green, blue, alpha] = known.get(fill);
      for (let k = 0; k < share.length; k++) {
        const px = left + dx[k], py = top + dy[k];
        if (px < 0 || py < 0 || px >= width || py >= height) continue;
        const o = 4 * (py * width + px);
        const mine = (share[k] * opacity * alpha) / 255;
        const under = (pixels[o + 3] / 255) * (1 - mine);
        const both = mine + under;
        pixels[o] = (red * mine + pixels[o] * under) / both;
        pixels[o + 1] = (green * mine + pixels[o + 1] * under) / both;
        pixels[o + 2] = (blue * mine + pixels[o + 2] * under) / both;
        pixels[o + 3] = 255 * both;
      }
    }
  }
  context.putImageData(image, 0, 0);
}

// The shown point nearest to a position on the screen, if it is within reach.
function pointNear(px, py) {
  const { data } = picture;
  const [x, y] = pointAt(px, py);
  const { x: range } = view();
  let least = ((REACH + picture.size / 2) * (range[1] - range[0]) / axes().width) ** 2;
  let best = NOBODY;
  for (const i of picture.shown) {
    const far = (data.x[i] - x) ** 2 + (data.y[i] - y) ** 2;
    if (far > least) continue;
    least = far;
    best = i;
  }
  return best;
}

// Call `hover` with the point under the mouse, or none, and `click` with a point that was pressed and released in place.
function watchPoints(hover, click) {
  let pressed = null;
  const near = (event) => {
    const box = picture.div.getBoundingClientRect();
    return pointNear(event.clientX - box.left, event.clientY - box.top);
  };
  picture.div.addEventListener('pointermove', (event) => {
    if (event.pointerType === 'mouse') hover(event.buttons ? NOBODY : near(event));
  });
  picture.div.addEventListener('pointerleave', () => hover(NOBODY));
  picture.div.addEventListener('pointerdown', (event) => {
    pressed = event.isPrimary && event.button === 0 ? event : null;
  }, { capture: true });
  addEventListener('pointerup', (event) => {
    const still = pressed && Math.hypot(event.clientX - pressed.clientX, event.clientY - pressed.clientY) < 4;
    const row = still && event.pointerId === pressed.pointerId ? near(event) : NOBODY;
    pressed = null;
    if (row !== NOBODY && !justPinched()) click(row);
  }, { capture: true });
}

// Adapt to a new size of the frame; if the whole picture was in view, it stays in view.
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
    const low = values.reduce((a, v) => Math.min(a, v)), high = values.reduce((a, v) => Math.max(a, v));
    const room = Math.max(high - low, 1e-6) * MARGIN;
    return [low - room, high + room];
  };
  return { x: bounds(data.x), y: bounds(data.y) };
}

// Show the rows that pass in their colors, with a rim around those in the lasso; the others are faint dots behind them.
function showPoints(data, passes, color, caught) {
  const shown = [], hidden = [];
  for (let i = 0; i < data.n; i++) (passes(i) ? shown : hidden).push(i);
  const colors = shown.map(color);
  const { behind, ink } = palette();
  const rimmed = caught.map(color);
  picture.shown = shown;
  picture.layers = [
    { rows: hidden, opacity: 1, color: () => behind },
    { rows: shown, opacity: data.n > 4000 ? 0.75 : 0.85, color: (at) => colors[at] },
    { rows: caught, opacity: 1, color: () => ink, more: 1.6 },
    { rows: caught, opacity: 1, color: (at) => rimmed[at], more: 0.4 },
  ];
  drawDots();
}

// Show the letters of all regions, and the outline of one region or none.
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

// plotly interprets some markup in text, and users may name regions.
const escaped = (text) => String(text).replace(/[&<>]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[c]);

// Draw a ring around the selected latent and each of its partners, and the lines between them.
function showSelected(data, row) {
  const { solid, dashed } = row === NOBODY ? { solid: [], dashed: [] } : linesFrom(data, row);
  const drawn = (pairs, at) => pairs.flatMap(([from, to]) => [at[from], at[to], null]);
  const ends = new Set([...solid, ...dashed].flat());
  ends.delete(row);
  const rings = row === NOBODY ? [] : [row, ...ends];
  picture.dots.classList.toggle('chosen', row !== NOBODY);
  const { nearest, single, ink } = palette();
  const base = picture.size;
  return Plotly.restyle(
    picture.div,
    {
      x: [drawn(solid, data.x), drawn(dashed, data.x), rings.map((i) => data.x[i])],
      y: [drawn(solid, data.y), drawn(dashed, data.y), rings.map((i) => data.y[i])],
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

// Pass copies, since plotly modifies the ranges that it is given.
const setView = ({ x, y }) => Plotly.relayout(picture.div, { 'xaxis.range': [...x], 'yaxis.range': [...y] });

// Zoom in by a factor about a point of the data, the middle by default; a factor below 1 zooms out.
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

// Bring all these rows into view, moving and zooming out only as far as necessary.
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

// The shown point nearest to `from` within 45° of a direction, for the arrow keys.
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

// Two fingers zoom and move. plotly handles only one finger, and takes the end of a pinch for a click.
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
