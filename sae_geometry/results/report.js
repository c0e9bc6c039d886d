// Sort a table by the column whose button is pressed: first the largest on top, then the smallest; empty cells last.
for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const head = button.parentNode, body = head.closest("table").tBodies[0], down = head.ariaSort !== "descending";
  for (const other of head.parentNode.cells) other.ariaSort = "none";
  head.ariaSort = down ? "descending" : "ascending";
  const rows = [...body.rows].map((row) => [row, row.cells[head.cellIndex].textContent]);
  const known = rows.filter(([, text]) => text !== ""), empty = rows.filter(([, text]) => text === "");
  const numbers = known.every(([, text]) => !Number.isNaN(Number(text)));
  const order = numbers ? ([, p], [, q]) => p - q : ([, p], [, q]) => (p < q ? -1 : p > q ? 1 : 0);
  known.sort((p, q) => (down ? order(q, p) : order(p, q)));
  body.append(...[...known, ...empty].map(([row]) => row));
};
