// Text on the page: the tooltip, the selected latent, the lasso's selection, and the provenance.

function tipOf(data, i) {
  const lines = [make('strong', {}, swatch(runColor(data.run[i])), `${nameOf(data, i)} · ${data.id[i]}`)];
  const best = bestPartner(data, i);
  if (best) {
    lines.push(make('span', {}, `best match ${latentIn(data, best.nearest, best.run)}, cosine ${three(best.cosine)}`));
    lines.push(make('span', {}, judged(best)));
    lines.push(
      make('span', {}, best.single === NOBODY
        ? `no ${pairing(data)} partner there`
        : `${pairing(data)} ${latentIn(data, best.single, best.run)}, cosine ${three(best.singleCosine)}`),
    );
  }
  lines.splice(1, 0, ...meaningOf(data, i).map((text) => make('span', { className: 'meaning' }, text)));
  const facts = factsOf(data, i).map(([name, value]) => `${name} ${value}`);
  if (facts.length) lines.push(make('span', { className: 'muted' }, facts.join(' · ')));
  return lines;
}

// The name of a one-to-one pair: between layers, it continues a chain.
const pairing = (data) => (data.flow ? 'chain' : 'one-to-one');

// The labels of a latent: its tokens on one line, and its explanation.
const meaningOf = (data, i) => [tokensOf(data, i).map(quoted).join('  '), explanationOf(data, i)].filter(Boolean);

// The evidence for a nearest partner: the cosine expected by chance, whether it is mutual and whether it is significant.
function judged(p) {
  const parts = [p.mutual ? 'mutual' : 'not mutual', p.significant ? 'significant' : 'not significant'];
  return [...(Number.isNaN(p.byChance) ? [] : [`by chance ${three(p.byChance)}`]), ...parts].join(', ');
}

const latentIn = (data, row, run) => `${data.runs[run].name} · ${row === NOBODY ? 'not in the picture' : data.id[row]}`;

function factsOf(data, i) {
  const facts = [];
  const region = regionOf(data, i);
  if (region) facts.push(['region', region.verdict ? `${region.letter} (${region.verdict})` : region.letter]);
  if (region?.tokens?.length) facts.push(['its tokens', region.tokens.map(quoted).join(' ')]);
  if (data.readable?.[i]) facts.push(['readable', data.readable[i] === 2 ? 'yes' : 'no']);
  if (data.frequency && !Number.isNaN(data.frequency[i])) facts.push(['fires on', percent(data.frequency[i])]);
  return facts;
}

// ---- the selected latent ----

function showNobody(into, starts) {
  into.replaceChildren(
    make('h2', {}, 'Nothing selected'),
    make('p', {}, 'Click a point, or look up a latent by its id. Or begin with:'),
    make('div', { className: 'starts' }, ...starts.map(([label, go]) => make('button', { type: 'button', onclick: go }, label))),
  );
}

function showLatent(data, i, into, { go, leave, hidden, matchedFrom }) {
  const page = pageOf(data, i);
  const head = make('div', { className: 'head' },
    make('h2', {}, swatch(runColor(data.run[i])), make('span', { className: 'name' }, nameOf(data, i)), make('b', {}, `${data.id[i]}`)),
    make('button', { type: 'button', className: 'quiet close', onclick: leave, ariaLabel: 'Clear the selection', title: 'Esc' }, '×'));
  const parts = [head];
  if (hidden) parts.push(make('p', { className: 'muted' }, 'The filters hide this latent; its ring is still shown.'));
  parts.push(...meaningOf(data, i).map((text) => make('p', { className: 'meaning' }, text)));
  const facts = factsOf(data, i);
  if (data.many) {
    const n = data.claims[i];
    facts.push(['nearest of', n === 0 ? 'no latent elsewhere' : `${count(n)} latent${n === 1 ? '' : 's'} elsewhere`]);
  }
  parts.push(make('dl', { className: 'facts' }, ...facts.flatMap(([name, value]) => [make('dt', {}, name), make('dd', {}, value)])));
  const links = make('p', { className: 'links' });
  if (page) {
    links.append(make('a', { href: page, target: '_blank', rel: 'noopener noreferrer', id: 'neuronpedia' }, 'Neuronpedia page ↗'));
  }
  links.append(make('a', { href: addressOf(i), id: 'link' }, 'link to this latent'));
  parts.push(links);
  const partners = partnersOf(data, i).filter((p) => !data.flow || p.nearest !== NOBODY || p.single !== NOBODY);
  for (const p of partners) parts.push(partnerBlock(data, p, go, matchedFrom));
  into.replaceChildren(...parts);
}

function partnerBlock(data, p, go, matchedFrom) {
  const block = make('div', { className: 'partner' }, make('h3', {}, swatch(runColor(p.run)), data.runs[p.run].name));
  const same = p.single !== NOBODY && p.single === p.nearest;
  const how = `${judged(p)}${same ? `, ${pairing(data)} too` : ''}`;
  if (!data.flow || p.nearest !== NOBODY) {
    block.append(partnerRow(data, 'nearest', p.nearest, p.cosine, how, go, matchedFrom));
  }
  if (!same) {
    block.append(
      p.single === NOBODY
        ? make('p', { className: 'muted none' }, `no ${pairing(data)} partner`)
        : partnerRow(data, pairing(data), p.single, p.singleCosine, '', go, matchedFrom),
    );
  }
  return block;
}

function partnerRow(data, kind, row, cosine, how, go, matchedFrom) {
  const bar = make('i', { className: `bar ${kind === 'nearest' ? 'solid' : 'dashed'}` });
  bar.style.setProperty('--share', `${Math.max(0, cosine) * 100}%`);
  bar.style.setProperty('--mark', `${matchedFrom * 100}%`);
  const inside = [
    make('span', { className: 'kind' }, kind),
    make('b', {}, row === NOBODY ? 'not in the picture' : `${data.id[row]}`),
    make('span', { className: 'cosine' }, three(cosine)),
    bar,
    make('span', { className: 'how' }, how),
    ...(row === NOBODY ? [] : meaningOf(data, row).slice(0, 1).map((text) => make('span', { className: 'meaning' }, text))),
  ];
  if (row === NOBODY) return make('div', { className: 'to' }, ...inside);
  const said = `${kind} partner: latent ${data.id[row]} of ${nameOf(data, row)}, cosine ${three(cosine)}${how && `, ${how}`}`;
  return make('button', { type: 'button', className: 'to', onclick: () => go(row), ariaLabel: said, title: 'Go there. The mark on the bar is the threshold.' }, ...inside);
}

// ---- the lasso's selection ----

function showCaught(data, rows, into, { matched, save, leave }) {
  into.hidden = false;
  const tally = data.runs.map(() => 0);
  for (const i of rows) tally[data.run[i]]++;
  const most = Math.max(1, ...tally);
  const list = make('ul', {}, ...data.runs.map((run, r) => {
    const bar = make('i', { className: 'bar solid' });
    bar.style.setProperty('--share', `${(100 * tally[r]) / most}%`);
    bar.style.setProperty('--paint', runColor(r));
    return make('li', {}, make('span', { className: 'name' }, run.name), make('b', {}, count(tally[r])), bar);
  }));
  const parts = [
    make('div', { className: 'head' },
      make('h2', {}, `Lasso: ${count(rows.length)} latent${rows.length === 1 ? '' : 's'}`),
      make('button', { type: 'button', className: 'quiet close', onclick: leave, ariaLabel: 'Clear the lasso’s selection' }, '×')),
    list,
  ];
  if (data.many && rows.length) {
    const n = rows.reduce((sum, i) => sum + (matched(i) ? 1 : 0), 0);
    parts.push(make('p', { className: 'muted' }, `${count(n)} matched at the threshold, ${count(rows.length - n)} not`));
  }
  const words = data.words.length && rows.length ? tokensOfRows(data, rows) : [];
  if (words.length) {
    const said = words.map(([token, n]) => `${quoted(token)} ${count(n)}`).join(' · ');
    parts.push(make('p', { className: 'meaning', id: 'caught-tokens' }, said));
  }
  if (rows.length) parts.push(make('button', { type: 'button', id: 'csv', onclick: save }, 'Download CSV'));
  into.replaceChildren(...parts);
}

function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: 'text/csv' }));
  make('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// ---- head and foot ----

function showAbout(data) {
  const put = (id, text) => { document.getElementById(id).textContent = text; };
  const p = data.params ?? {};
  const runs = data.runs.length === 1 ? 'one dictionary' : `${data.runs.length} dictionaries`;
  put('subtitle', `${count(data.n)} latents of ${runs}`);
  const alone = data.flow ? 'Positions are not evidence; edges are.' : 'A UMAP is for finding one’s way, not evidence.';
  const about = data.flow ? 'How to read it' : 'How far to believe it';
  put('evidence', data.evidence ? `${about}: ${data.evidence}. ${alone}` : alone);

  const caveats = document.getElementById('caveats');
  caveats.hidden = !data.caveats?.length;
  caveats.replaceChildren(...(data.caveats ?? []).map((text) => make('li', {}, text)));

  const engine = [p.backend, p.backend_version].filter(Boolean).join(' ');
  const made = [
    data.flow ? 'Features followed through layers.' : `UMAP from exact cosine neighbors (k = ${p.n_neighbors ?? '?'}), min_dist ${p.min_dist ?? '?'}, seed ${p.seed ?? '?'}, ${engine}.`,
    data.regions_how ? `Regions: ${data.regions_how}.` : '',
    data.reproducible_with ? `Reproducible with ${data.reproducible_with}.` : '',
  ].filter(Boolean).join(' ');
  const parts = [make('p', {}, made)];
  for (const source of data.labels ?? []) parts.push(make('p', {}, `Labels: ${source}.`));
  if (data.command) parts.push(make('p', {}, make('code', {}, data.command)));
  const software = Object.entries(data.software ?? {}).map(([name, version]) => `${name} ${version}`).join(', ');
  parts.push(make('p', {}, [data.created?.slice(0, 10), software].filter(Boolean).join(' · ')));
  for (const run of data.runs) {
    const said = [
      [run.model, run.hook_point].filter(Boolean).join(', '),
      run.latents,
      run.fingerprint && `fingerprint ${run.fingerprint.slice(0, 12)}`,
      ...(run.notes ?? []),
    ].filter(Boolean);
    parts.push(make('p', {}, make('b', {}, run.name), ' ', make('code', {}, run.address ?? 'no address'), make('br'), said.join('; ')));
  }
  document.getElementById('provenance').replaceChildren(...parts);
}
