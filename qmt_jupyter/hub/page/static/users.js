// The table of users. Rows are changed in place, and stay where they are while somebody is at them.

import { element, freshId, keyed, set, write } from "./elements.js";
import { ago, number } from "./words.js";

const text = new Intl.Collator("en", { numeric: true }).compare;
const COLUMNS = [
  { name: "user", title: "user", of: (user) => user.user },
  { name: "state", title: "state", of: stateOf },
  { name: "today", title: "today", of: (user) => user.tokens_today + user.elsewhere.day, numeric: true },
  { name: "month", title: "this month", of: (user) => user.tokens_month + user.elsewhere.month, numeric: true },
  { name: "running", title: "running", of: (user) => user.running, numeric: true },
  { name: "waiting", title: "waiting", of: (user) => user.waiting, numeric: true },
  { name: "speed", title: "tokens/s", of: (user) => user.tokens_per_second, numeric: true },
  { name: "seen", title: "last seen", of: (user) => user.last_seen ?? 0, numeric: true },
];

function stateOf(user) {
  if (user.paused) return "paused";
  if (user.left.month !== null && user.left.month <= 0) return "month used up";
  if (user.left.day !== null && user.left.day <= 0) return "day used up";
  if (user.running || user.waiting) return "asking";
  return user.seats.some((seat) => seat.connections) ? "connected" : "away";
}

function against(tokens, limit) {
  return limit ? `${number(tokens)} of ${number(limit)}` : number(tokens);
}

export function userTable({ change, limits }) {
  const body = document.getElementById("users");
  const find = document.getElementById("find");
  const shown = document.getElementById("shown");
  let sorted = { by: COLUMNS[0], down: false };
  let state = { users: [], now: 0 };
  let order = [];

  const heads = COLUMNS.map((column) => {
    const button = element("button", { type: "button", textContent: column.title });
    const head = element("th", { scope: "col", className: column.numeric ? "number" : "" }, button);
    button.addEventListener("click", () => {
      const same = sorted.by === column;
      sorted = { by: column, down: same ? !sorted.down : Boolean(column.numeric) };
      arrange();
    });
    return [column, head];
  });
  document.getElementById("columns").append(...heads.map(([, head]) => head),
    element("th", { scope: "col", textContent: "change" }));

  function row(name) {
    const cells = Object.fromEntries(COLUMNS.slice(1).map((column) =>
      [column.name, element("td", { className: column.numeric ? "number" : "" })]));
    const id = freshId("user");
    const button = (what, text) => element("button", {
      type: "button", textContent: text, id: `${id}-${what}`,
      attributes: { "aria-labelledby": `${id}-${what} ${id}` },
    });
    const pause = button("pause", "Pause");
    const change_limits = button("limits", "Limits…");
    const wrong = element("span", { className: "wrong", attributes: { role: "alert" } });
    const node = element("tr", {},
      element("th", { scope: "row", id }, element("bdi", { textContent: name })),
      ...Object.values(cells),
      element("td", { className: "actions" }, pause, change_limits, wrong));
    let paused = false;
    pause.addEventListener("click", async () => {
      const wanted = !paused;
      pause.setAttribute("aria-disabled", "true");
      write(wrong, "");
      try {
        await change(name, { paused: wanted },
          wanted ? `${name} is paused; what was being written has ended.` : `${name} can go on.`);
      } catch (problem) {
        write(wrong, problem.message);
      }
      pause.removeAttribute("aria-disabled");
    });
    change_limits.addEventListener("click", () => limits(name));

    function update(user) {
      paused = user.paused;
      write(pause, paused ? "Resume" : "Pause");
      set(node.dataset, "state", stateOf(user));
      write(cells.state, stateOf(user));
      write(cells.today, against(user.tokens_today + user.elsewhere.day, user.allowance.tokens_per_day));
      write(cells.month, against(user.tokens_month + user.elsewhere.month, user.allowance.tokens_per_month));
      write(cells.running, number(user.running));
      write(cells.waiting, number(user.waiting));
      write(cells.speed, number(user.tokens_per_second));
      write(cells.seen, ago(user.last_seen, state.now));
    }
    return { node, update };
  }

  const rows = keyed(body, row);

  function arrange() {
    const { by, down } = sorted;
    for (const [column, head] of heads) {
      if (column === by) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    const compare = by.numeric ? (a, b) => by.of(a) - by.of(b) : (a, b) => text(by.of(a), by.of(b));
    order = [...state.users]
      .sort((a, b) => (down ? -1 : 1) * compare(a, b) || text(a.user, b.user))
      .map((user) => user.user);
    fill();
  }

  function fill() {
    const wanted = find.value.trim().toLocaleLowerCase();
    const users = new Map(state.users.map((user) => [user.user, user]));
    const inOrder = order.filter((name) => users.has(name)).map((name) => users.get(name));
    const known = new Set(order);
    inOrder.push(...state.users.filter((user) => !known.has(user.user)));
    order = inOrder.map((user) => user.user);
    let matching = 0;
    const made = rows(inOrder, (user) => user.user);
    for (const user of inOrder) {
      const matches = user.user.toLocaleLowerCase().includes(wanted);
      set(made.get(user.user).node, "hidden", !matches);
      matching += matches;
    }
    write(shown, wanted ? `${number(matching)} of ${number(inOrder.length)}` : number(inOrder.length));
  }

  /** What moves under a pointer or a key is hard to hit. */
  const isUsed = () => body.matches(":hover") || body.contains(document.activeElement);

  find.addEventListener("input", fill);
  return {
    show(newest) {
      state = { ...state, ...newest };
      if (isUsed()) fill();
      else arrange();
    },
  };
}
