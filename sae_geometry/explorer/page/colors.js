// Colors: Okabe–Ito for categories and one ramp for amounts, each in a light and a dark version.

const PALETTES = {
  light: {
    runs: ['#E69F00', '#56B4E9', '#009E73', '#CC79A7', '#000000', '#D9C400', '#0072B2', '#D55E00'],
    ramp: ['#DAD7CC', '#9CC7E3', '#3C8DC1', '#005A94', '#00264D'],
    matched: '#0072B2',
    unmatched: '#E69F00',
    nothing: '#C9C7C0',
    behind: 'rgba(120, 118, 110, 0.16)',
    nearest: '#0072B2',
    single: '#D55E00',
    ink: '#22262A',
    paper: '#FFFFFF',
  },
  dark: {
    runs: ['#F0AE26', '#6DC1F2', '#1FBF92', '#DD93BC', '#F2F2F2', '#F0E442', '#3F9BDB', '#F27A2E'],
    ramp: ['#3A4148', '#3B6284', '#3F93CC', '#8CCBF5', '#E8F6FF'],
    matched: '#56B4E9',
    unmatched: '#F0AE26',
    nothing: '#4A5158',
    behind: 'rgba(160, 170, 180, 0.15)',
    nearest: '#6DC1F2',
    single: '#F27A2E',
    ink: '#E8EAEC',
    paper: '#181B1F',
  },
};
const SHADES = 48;

const theme = () => document.documentElement.dataset.theme;
const palette = () => PALETTES[theme()];
const runColor = (run) => palette().runs[run % palette().runs.length];
const regionColor = (code, n) => (code ? regionColors(n)[code - 1] : palette().nothing);

// Distinct colors for n regions: those of the runs, then repeatedly the hue that is farthest from all colors in use.
const ofRegions = {};
function regionColors(n) {
  if (ofRegions[theme()]?.length >= n) return ofRegions[theme()];
  const { runs, paper, nothing } = palette();
  const hues = Array.from({ length: 120 }, (_, i) => `hsl(${(i % 30) * 12} 65% ${35 + 15 * Math.floor(i / 30)}%)`);
  const places = hues.map(seenAs), taken = [...runs, paper, nothing].map(seenAs);
  const far = places.map((place) => Math.min(...taken.map((other) => apart(place, other))));
  const colors = [...runs];
  while (colors.length < n) {
    const next = far.indexOf(Math.max(...far));
    colors.push(hues[next]);
    places.forEach((place, i) => { far[i] = Math.min(far[i], apart(place, places[next])); });
  }
  return (ofRegions[theme()] = colors);
}

const apart = (p, q) => Math.hypot(...p.map((v, i) => v - q[i]));

// A color in OKLab, in which distances match perceived differences.
function seenAs(color) {
  const [r, g, b] = Array.from(channelsOf(color).slice(0, 3), (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

function shades(stops) {
  const channels = stops.map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  return Array.from({ length: SHADES }, (_, i) => {
    const at = (i / (SHADES - 1)) * (stops.length - 1);
    const low = Math.min(Math.floor(at), stops.length - 2);
    const mixed = channels[low].map((c, j) => Math.round(c + (channels[low + 1][j] - c) * (at - low)));
    return '#' + mixed.map((c) => c.toString(16).padStart(2, '0')).join('');
  });
}

// The ways to color points: each gives the color of row i and the entries of the legend.
function colorings(data, matched) {
  const ways = {
    run: {
      label: 'by run',
      color: (i) => runColor(data.run[i]),
      legend: () => data.runs.map((run, r) => [runColor(r), run.name]),
    },
  };
  if (data.many) {
    ways.cosine = { label: 'by best cosine', ...amount((i) => data.best.cosine[i], 0, 1, (x) => x.toFixed(1)) };
    ways.matched = {
      label: 'by matched or not',
      color: (i) => (matched(i) ? palette().matched : palette().unmatched),
      legend: () => [[palette().matched, 'matched'], [palette().unmatched, 'unmatched']],
    };
  }
  if (data.regions.length) {
    ways.region = {
      label: 'by region',
      color: (i) => regionColor(data.region[i], data.regions.length),
      legend: () => [
        ...data.regions.slice(0, 30).map((region, at) => [regionColor(at + 1, data.regions.length), region.letter]),
        [palette().nothing, data.regions.length > 30 ? `outside; ${data.regions.length - 30} more by their letters` : 'outside'],
      ],
    };
  }
  if (data.readable) {
    const kinds = () => [palette().nothing, palette().unmatched, palette().matched];
    ways.readable = {
      label: 'by readable or not',
      color: (i) => kinds()[data.readable[i]],
      legend: () => [[kinds()[2], 'readable'], [kinds()[1], 'not'], [kinds()[0], 'unknown']],
    };
  }
  if (data.frequency) {
    const known = Array.from(data.frequency).filter((f) => f > 0).map(Math.log10);
    if (known.length) {
      const low = known.reduce((a, b) => Math.min(a, b));
      const high = Math.max(known.reduce((a, b) => Math.max(a, b)), low + 0.1);
      const log = (i) => (data.frequency[i] > 0 ? Math.log10(data.frequency[i]) : NaN);
      ways.frequency = { label: 'by density (firing frequency)', ...amount(log, low, high, (x) => percent(10 ** x)) };
    }
  }
  return ways;
}

function amount(value, low, high, say) {
  return {
    color(i) {
      const v = value(i);
      if (Number.isNaN(v)) return palette().nothing;
      const at = Math.min(Math.max((v - low) / (high - low), 0), 1);
      return currentShades()[Math.round(at * (SHADES - 1))];
    },
    ramp: () => ({ stops: palette().ramp, low: say(low), high: say(high) }),
  };
}

const made = {};
const currentShades = () => (made[theme()] ??= shades(palette().ramp));

function percent(share) {
  const digits = share >= 0.1 ? 0 : share >= 0.001 ? 2 : 4;
  return share < 0.00001 ? '< 0.001%' : `${(100 * share).toFixed(digits)}%`;
}

function showLegend(way, into) {
  into.replaceChildren();
  if (way.ramp) {
    const { stops, low, high } = way.ramp();
    const bar = make('i', { className: 'ramp' });
    bar.style.background = `linear-gradient(to right, ${stops.join(', ')})`;
    into.append(make('span', {}, low), bar, make('span', {}, high));
    return;
  }
  for (const [color, name] of way.legend()) into.append(make('span', { className: 'key' }, swatch(color), name));
}

// Make an element. Its contents are always text or other elements, never markup.
function make(tag, { ariaLabel, ...properties } = {}, ...inside) {
  const element = Object.assign(document.createElement(tag), properties);
  if (ariaLabel) element.setAttribute('aria-label', ariaLabel);
  element.append(...inside);
  return element;
}

function swatch(color) {
  const dot = make('i', { className: 'swatch' });
  dot.style.background = color;
  return dot;
}
