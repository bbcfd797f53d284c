// Makes elements and keeps them true. Text is only ever set as text.

const SVG = "http://www.w3.org/2000/svg";
let ids = 0;

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  const { attributes = {}, ...rest } = properties;
  Object.assign(made, rest);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export function drawn(name, attributes = {}) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** Touches the page only when the text differs. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function set(node, property, value) {
  if (node[property] !== value) node[property] = value;
}

export function freshId(what) {
  ids += 1;
  return `${what}-${ids}`;
}

/**
 * Keeps the children of `parent` in step with `items`: one row an item, made once by `make(key)`,
 * which answers `{node, update(item)}`. Rows stay where they are unless `order` is another.
 */
export function keyed(parent, make) {
  const rows = new Map();
  return (items, keyOf) => {
    const keys = new Set();
    for (const item of items) {
      const key = keyOf(item);
      keys.add(key);
      if (!rows.has(key)) rows.set(key, make(key));
      rows.get(key).update(item);
    }
    for (const [key, row] of rows) {
      if (!keys.has(key)) {
        row.node.remove();
        rows.delete(key);
      }
    }
    let next = parent.firstElementChild;
    for (const key of keys) {
      const { node } = rows.get(key);
      if (node === next) next = next.nextElementSibling;
      else parent.insertBefore(node, next);
    }
    return rows;
  };
}
