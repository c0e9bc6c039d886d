// The lasso: a line drawn around points with a mouse, pen or finger.

function inside(polygon, x, y) {
  let odd = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const [xi, yi] = polygon[i], [xj, yj] = polygon[j];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) odd = !odd;
  }
  return odd;
}

// Watch for a line drawn on the rope, the layer above the picture, and call `caught` with the shown rows inside it.
function watchLasso(data, caught) {
  const rope = document.getElementById('rope');
  const path = rope.querySelector('path');
  let line = [];
  const trace = () => path.setAttribute('d', line.length ? 'M' + line.map((p) => p.join(' ')).join('L') + 'Z' : '');
  const at = (event) => {
    const box = rope.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const end = () => { line = []; trace(); };
  rope.addEventListener('pointerdown', (event) => {
    rope.setPointerCapture(event.pointerId);
    line = [at(event)];
    trace();
  });
  rope.addEventListener('pointermove', (event) => {
    if (!line.length) return;
    line.push(at(event));
    trace();
  });
  rope.addEventListener('pointercancel', end);
  rope.addEventListener('pointerup', () => {
    if (!line.length) return;
    const polygon = line.map(([x, y]) => pointAt(x, y));
    const rows = line.length < 3 ? [] : picture.shown.filter((i) => inside(polygon, data.x[i], data.y[i]));
    end();
    caught(rows);
  });
}
