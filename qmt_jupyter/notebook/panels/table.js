// A table that is sorted by its heads and updated row by row: what has the focus, or is selected,
// stays as it is, and rows hold still while somebody points at them.
//
// A column is `{ key, head, numeric?, sort(row), text(row)?, fill(cell, row)? , hint(row)? }`.
// Without `sort` it has no button.

const FILTER_FROM = 10;

function dataTable({ label, columns, id, order, empty }) {
  const lines = new Map();
  let rows = [];
  let by = order.key;
  let downwards = order.descending;
  let pointed = false;

  const heads = columns.map((column) => {
    const head = element("th", { attributes: { scope: "col" } });
    if (column.numeric) head.className = "qmt-number";
    if (!column.sort) {
      write(head, column.head);
      return head;
    }
    head.append(button(column.head, () => {
      downwards = by === column.key ? !downwards : Boolean(column.numeric);
      by = column.key;
      mark();
      arrange(true);
    }, { className: "qmt-sort" }));
    return head;
  });
  const body = element("tbody", {});
  const caption = element("caption", { className: "qmt-unseen", textContent: label });
  const table = element(
    "table", { className: "qmt-table" }, caption,
    element("thead", {}, element("tr", {}, ...heads)), body,
  );
  // Scrolled by keys too.
  const scroller = element("div", {
    className: "qmt-scroller", tabIndex: 0, attributes: { role: "region", "aria-label": label },
  }, table);
  const filter = element("input", {
    type: "search", placeholder: "Filter", attributes: { "aria-label": `Filter: ${label}` },
  });
  const found = element("span", { className: "qmt-hint", attributes: { role: "status" } });
  const bar = element("div", { className: "qmt-filter", hidden: true }, filter, found);
  const nothing = element("p", { className: "qmt-hint", textContent: empty });
  filter.addEventListener("input", () => sift());
  // Only what can be seen is held still: the body moves under a resting pointer while it grows.
  body.addEventListener("pointerenter", () => { pointed = true; });
  body.addEventListener("pointerleave", () => {
    pointed = false;
    arrange(false);
  });

  function mark() {
    columns.forEach((column, at) => {
      if (!column.sort) return;
      const sorted = column.key === by ? (downwards ? "descending" : "ascending") : "none";
      heads[at].setAttribute("aria-sort", sorted);
    });
  }

  function sorted() {
    const { sort } = columns.find((column) => column.key === by);
    const sign = downwards ? -1 : 1;
    const value = new Map(rows.map((row) => [row, sort(row)]));
    return [...rows].sort((one, other) => {
      const [a, b] = [value.get(one), value.get(other)];
      if (typeof a === "string") return sign * a.localeCompare(b);
      return sign * (a - b);
    });
  }

  // `asked`: somebody wants it sorted now.
  function arrange(asked) {
    const busy = pointed || body.contains(document.activeElement);
    if (busy && !asked) return;
    const focused = body.contains(document.activeElement) ? document.activeElement : null;
    let place = body.firstElementChild;
    for (const row of sorted()) {
      const { line } = lines.get(id(row));
      if (line === place) place = place.nextElementSibling;
      else body.insertBefore(line, place);
    }
    focused?.focus({ preventScroll: true });
  }

  function sift() {
    const wanted = filter.value.trim().toLowerCase();
    let seen = 0;
    for (const { line } of lines.values()) {
      line.hidden = wanted !== "" && !line.textContent.toLowerCase().includes(wanted);
      seen += !line.hidden;
    }
    write(found, wanted ? `${seen} of ${lines.size}` : "");
  }

  function fill({ line, cells }, row) {
    columns.forEach((column, at) => {
      const cell = cells[at];
      if (column.fill) column.fill(cell, row);
      else write(cell, String(column.text(row)));
      const hint = column.hint?.(row) ?? "";
      if (cell.title !== hint) cell.title = hint;
    });
  }

  function newLine() {
    const cells = columns.map((column, at) => element(at ? "td" : "th", {
      className: column.numeric ? "qmt-number" : "",
      attributes: at ? {} : { scope: "row" },
    }));
    return { line: element("tr", {}, ...cells), cells };
  }

  function update(given) {
    rows = given;
    const kept = new Set(rows.map(id));
    for (const [key, { line }] of lines) {
      if (kept.has(key)) continue;
      line.remove();
      lines.delete(key);
    }
    for (const row of rows) {
      const key = id(row);
      if (!lines.has(key)) {
        lines.set(key, newLine());
        body.append(lines.get(key).line);
      }
      fill(lines.get(key), row);
    }
    arrange(false);
    bar.hidden = rows.length <= FILTER_FROM && !filter.value;
    scroller.hidden = rows.length === 0;
    nothing.hidden = rows.length > 0;
    sift();
  }

  mark();
  return { node: element("div", { className: "qmt-listing" }, bar, scroller, nothing), update };
}
