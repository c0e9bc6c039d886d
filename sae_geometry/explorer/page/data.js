// The data: one row per latent, in shuffled order, with each latent's partners in every other run. See packing.py for
// the arrays.

const NOBODY = -1;
const ON_CHAIN = -2;
const COSINE_STEPS = 32767;
const NO_COSINE = -32768;

async function unpacked(id) {
  const element = document.getElementById(id);
  const text = atob(element.textContent);
  element.remove();
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Response(stream).arrayBuffer();
}

async function readData() {
  const about = JSON.parse(document.getElementById('about').textContent);
  const buffer = await unpacked('arrays-packed');
  const types = { Float32Array, Int32Array, Uint32Array, Int16Array, Uint16Array, Uint8Array };
  const arrays = {};
  for (const [name, [type, offset, length]] of Object.entries(about.arrays)) {
    arrays[name] = new types[type](buffer, offset, length);
  }
  const data = { ...about, ...arrays, n: arrays.x.length, slots: about.runs.length - 1 };
  const texts = JSON.parse(new TextDecoder().decode(await unpacked('texts-packed')));
  data.words = texts.tokens;
  data.explanations = texts.explanations;
  data.perLatent = data.tokens ? data.tokens.length / data.n : 0;
  data.labeled = data.words.length > 0 || data.explanations.length > 0;
  data.many = data.slots > 0;
  if (data.flow) followChains(data);
  data.best = bestOf(data, 'cosine');
  data.bestSingle = bestOf(data, 'single_cosine');
  data.claims = claimsOf(data);
  data.rows = rowsById(data);
  return data;
}

const cosineOf = (steps) => (steps === NO_COSINE ? NaN : steps / COSINE_STEPS);

// The run that slot k of a latent of `run` refers to.
const runOfSlot = (run, slot) => (slot < run ? slot : slot + 1);

// A flow's arrays have only each latent's partner in the next layer, and ON_CHAIN for a nearest latent on its chain. Fill
// in the partners in the layer before, the nearest latents, and the rest of each chain, step by step.
function followChains(data) {
  for (let i = 0; i < data.n; i++) {
    const k = data.run[i];
    const next = k < data.slots ? data[`single_${k}`][i] : NOBODY;
    if (next === NOBODY) continue;
    data[`single_${k}`][next] = i;
    data[`single_cosine_${k}`][next] = data[`single_cosine_${k}`][i];
  }
  for (let k = 0; k < data.slots; k++) {
    const nearest = data[`nearest_${k}`];
    for (let i = 0; i < data.n; i++) {
      if (nearest[i] !== ON_CHAIN) continue;
      nearest[i] = data[`single_${k}`][i];
      data[`cosine_${k}`][i] = data[`single_cosine_${k}`][i];
    }
  }
  for (let distance = 2; distance <= data.slots; distance++) {
    for (let i = 0; i < data.n; i++) {
      const run = data.run[i];
      for (const [step, to] of [[run, run + distance - 1], [run - 1, run - distance]]) {
        if (to < 0 || to >= data.slots) continue;
        const partner = data[`single_${step}`][i];
        if (partner !== NOBODY) data[`single_${to}`][i] = data[`single_${to}`][partner];
      }
    }
  }
}

// For each latent, the slot with the largest cosine (the first of equals), and that cosine.
function bestOf(data, what) {
  const slot = new Int16Array(data.n).fill(NOBODY);
  const cosine = new Float32Array(data.n).fill(NaN);
  for (let k = 0; k < data.slots; k++) {
    const values = data[`${what}_${k}`];
    for (let i = 0; i < data.n; i++) {
      if (values[i] === NO_COSINE || cosineOf(values[i]) <= cosine[i]) continue;
      slot[i] = k;
      cosine[i] = cosineOf(values[i]);
    }
  }
  return { slot, cosine };
}

// For each latent, the number of latents in other runs that have it as their nearest partner.
function claimsOf(data) {
  const claims = new Uint32Array(data.n);
  for (let k = 0; k < data.slots; k++) {
    for (const partner of data[`nearest_${k}`]) if (partner !== NOBODY) claims[partner]++;
  }
  return claims;
}

function rowsById(data) {
  const rows = data.runs.map(() => new Map());
  for (let i = 0; i < data.n; i++) rows[data.run[i]].set(data.id[i], i);
  return rows;
}

// The partners of row i, one entry per other run; byChance is the mean nearest cosine to the turned run.
function partnersOf(data, i) {
  const found = [];
  for (let k = 0; k < data.slots; k++) {
    const run = runOfSlot(data.run[i], k);
    found.push({
      run,
      byChance: data.by_chance[data.run[i]][run] ?? NaN,
      nearest: data[`nearest_${k}`][i],
      cosine: cosineOf(data[`cosine_${k}`][i]),
      mutual: data[`mutual_${k}`][i] === 1,
      significant: data[`significant_${k}`][i] === 1,
      single: data[`single_${k}`][i],
      singleCosine: cosineOf(data[`single_cosine_${k}`][i]),
    });
  }
  return found;
}

// The ends of the lines from row i. Through layers, solid lines follow its chain and dashed ones its splits and merges.
// Between runs, solid lines lead to the nearest partners and dashed ones to one-to-one partners that differ from them.
function linesFrom(data, i) {
  const partners = partnersOf(data, i);
  const there = (pairs) => pairs.filter(([from, to]) => from !== NOBODY && to !== NOBODY);
  if (!data.flow) {
    return {
      solid: there(partners.map((p) => [i, p.nearest])),
      dashed: there(partners.filter((p) => p.single !== p.nearest).map((p) => [i, p.single])),
    };
  }
  const chain = [i, ...partners.map((p) => p.single)].filter((row) => row !== NOBODY);
  chain.sort((a, b) => data.run[a] - data.run[b]);
  return {
    solid: chain.slice(1).map((row, at) => [chain[at], row]),
    dashed: there(partners.filter((p) => p.single !== p.nearest).map((p) => [i, p.nearest])),
  };
}

// The partner of row i with the largest cosine; null with only one run, or without an edge to another layer.
function bestPartner(data, i) {
  const slot = data.best.slot[i];
  return slot === NOBODY ? null : partnersOf(data, i)[slot];
}

const nameOf = (data, i) => data.runs[data.run[i]].name;
const regionOf = (data, i) => (data.region[i] ? data.regions[data.region[i] - 1] : null);

function pageOf(data, i) {
  const pages = data.runs[data.run[i]].neuronpedia;
  return pages ? `${pages}/${data.id[i]}` : null;
}

const count = (n) => n.toLocaleString('en');
const three = (x) => (Number.isNaN(x) ? '–' : x.toFixed(3));

function csvOf(data, rows) {
  // A spreadsheet would evaluate text that begins like a formula, unless a quote precedes it.
  const harmless = (value) => (typeof value === 'string' && /^[=+\-@\t\r＝＋－＠]/.test(value) && Number.isNaN(Number(value)) ? `'${value}` : String(value));
  const cell = (value) => (/[",\r\n]/.test(value) ? `"${harmless(value).replaceAll('"', '""')}"` : harmless(value));
  const number = (x, digits) => (Number.isNaN(x) ? '' : x.toFixed(digits));
  const head = ['run', 'latent_id', 'x', 'y', 'region'];
  if (data.frequency) head.push('frequency');
  if (data.words.length) head.push('tokens');
  if (data.explanations.length) head.push('explanation');
  if (data.many) {
    head.push('partner_run', 'partner_id', 'max_cosine', 'by_chance', 'mutual', 'significant', 'one_to_one_partner_id', 'one_to_one_cosine');
  }
  const lines = [head];
  for (const i of rows) {
    const line = [nameOf(data, i), data.id[i], number(data.x[i], 5), number(data.y[i], 5), regionOf(data, i)?.letter ?? ''];
    if (data.frequency) line.push(Number.isNaN(data.frequency[i]) ? '' : data.frequency[i].toPrecision(6));
    if (data.words.length) line.push(tokensOf(data, i).map(quoted).join(' '));
    if (data.explanations.length) line.push(explanationOf(data, i));
    if (data.many) {
      const p = bestPartner(data, i);
      const id = (row) => (row === NOBODY ? '' : data.id[row]);
      line.push(
        ...(p
          ? [data.runs[p.run].name, id(p.nearest), number(p.cosine, 4), number(p.byChance, 4), p.mutual, p.significant, id(p.single), number(p.singleCosine, 4)]
          : ['', '', '', '', '', '', '', '']),
      );
    }
    lines.push(line);
  }
  return lines.map((line) => line.map(cell).join(',')).join('\n') + '\n';
}
