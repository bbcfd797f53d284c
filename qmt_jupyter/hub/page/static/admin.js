// An admin's part of the page: totals, models, users, and the chart of all of them.

import { ask, say, teller, watch } from "./ask.js";
import { hourChart } from "./chart.js";
import { element, keyed, write } from "./elements.js";
import { limitsDialog } from "./limits.js";
import { userTable } from "./users.js";
import { number } from "./words.js";

const EVERY_MS = 2_000;
const HOURS_EVERY_MS = 60_000;
const TOTALS = [
  ["users", "users"],
  ["connected", "connected"],
  ["running", "answers being written"],
  ["waiting", "waiting"],
  ["tokens_per_second", "tokens a second"],
  ["tokens_today", "tokens today"],
  ["tokens_month", "tokens this month"],
  ["paused", "paused"],
];

const list = document.getElementById("totals");
const totals = TOTALS.map(([name, title]) => {
  const value = element("dd", { textContent: "–" });
  list.append(element("div", {}, element("dt", { textContent: title }), value));
  return [name, value];
});

const models = keyed(document.getElementById("models"), (name) => {
  const cells = ["slots", "busy", "waiting"].map((each) => [each, element("td", { className: "number" })]);
  const node = element("tr", {}, element("th", { scope: "row" }, element("bdi", { textContent: name })),
    ...cells.map(([, cell]) => cell));
  return { node, update: (model) => cells.forEach(([each, cell]) => write(cell, number(model[each]))) };
});

/** What there is to say of the other services that this one counts together with. */
function peersWords(peers) {
  const away = peers.filter((each) => !each.answers).map((each) => `${each.url}: ${each.trouble}.`);
  if (away.length) return `Not counted together now: ${away.join(" ")}`;
  return peers.length ? `Counted together with ${peers.map((each) => each.url).join(", ")}` : "";
}

const peers = document.getElementById("peers");
let latest = { users: [], models: [], zone: "UTC" };
const dialog = limitsDialog(document.getElementById("limits"), change);
const table = userTable({
  change,
  limits: (user) => dialog.open(user, latest),
});

/** Ask for a change, show what came of it, and say it. Throws a Problem. */
async function change(user, wanted, words) {
  const entry = await ask("api/users", { user, ...wanted });
  latest.users = latest.users.map((each) => (each.user === user ? entry : each));
  table.show(latest);
  say(words);
  look();
}

const look = watch(async () => {
  const state = await ask("api/state");
  latest = state;
  for (const [name, value] of totals) write(value, number(state.totals[name] ?? 0));
  models(state.models, (model) => model.name);
  write(peers, peersWords(state.peers ?? []));
  table.show(state);
}, EVERY_MS, teller("state"));

const chart = hourChart("Tokens of all users");
document.getElementById("hours").append(chart.node);
watch(async () => chart.update(await ask("api/hours?days=7&everybody=1")), HOURS_EVERY_MS, teller("hours"));
