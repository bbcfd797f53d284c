// One's own part of the page: whether one can ask now, use against limits, and the chart.

import { ask, say, teller, watch } from "./ask.js";
import { hourChart } from "./chart.js";
import { element, freshId, set, write } from "./elements.js";
import { count, here, limitWords, moment, number } from "./words.js";

const EVERY_MS = 5_000;
const HOURS_EVERY_MS = 60_000;
const RULES = [
  ["hours", "Hours"],
  ["models", "Models"],
  ["concurrent", "Requests at the same time"],
  ["requests_per_minute", "Requests in a minute"],
  ["answer_tokens", "Tokens of one answer"],
];

/** Use of a span of time against its limit: a bar, and the same in words. */
function meter(what) {
  const id = freshId("meter");
  const bar = element("progress", { attributes: { "aria-labelledby": id } });
  const used = element("strong");
  const rest = element("span");
  const node = element("div", { className: "meter" },
    element("p", { id }, used, " ", rest), bar);

  function update(tokens, limit, elsewhere) {
    write(used, count(tokens, "token"));
    const there = elsewhere ? `, ${number(elsewhere)} of them on other services` : "";
    write(rest, limit ? `of ${number(limit)} ${what}${there}` : `${what}, without a limit${there}`);
    set(bar, "hidden", !limit);
    if (!limit) return;
    set(bar, "max", limit);
    set(bar, "value", Math.min(tokens, limit));
    bar.classList.toggle("low", tokens >= 0.9 * limit);
  }
  return { node, update };
}

function inZone(seconds, zone) {
  const at = new Date(seconds * 1000);
  const words = { weekday: "long", hour: "2-digit", minute: "2-digit" };
  if (at - Date.now() > 6 * 86_400_000) Object.assign(words, { day: "numeric", month: "long" });
  return `${at.toLocaleString("en-GB", { ...words, timeZone: zone })} (${zone})`;
}

function standingWords({ standing: { state, again }, zone, running, waiting }) {
  if (state === "paused") return "You are paused: whoever runs the service has stopped your requests. Ask them.";
  if (state === "closed") {
    if (!again) return "It is not one of your hours, and none is in sight. Ask whoever runs the service.";
    const local = zone === here ? "" : `, which is ${moment(again)} where you are`;
    return `It is not one of your hours. You can ask again on ${inZone(again, zone)}${local}.`;
  }
  if (state === "day") return `Today's tokens are used up. There are new ones at midnight (${zone}).`;
  if (state === "month") return `This month's tokens are used up. There are new ones on the 1st (${zone}).`;
  const parts = [];
  if (running) parts.push(`${count(running, "answer")} being written`);
  if (waiting) parts.push(`${count(waiting, "request")} waiting for a free place`);
  return `You can ask now.${parts.length ? ` Of yours: ${parts.join(", ")}.` : ""}`;
}

function origin(rule) {
  if (rule === "admin") return "set for you by an admin";
  if (rule === "user") return "set for you";
  if (rule === "everybody") return "for everybody";
  if (rule?.startsWith("group")) return `for your ${rule}`;
  return "";
}

function rulesOf(list) {
  const rows = new Map(RULES.map(([name, title]) => {
    const value = element("span");
    const from = element("span", { className: "quiet" });
    list.append(element("div", {}, element("dt", { textContent: title }), element("dd", {}, value, " ", from)));
    return [name, { value, from }];
  }));
  return (me) => {
    for (const [name, { value, from }] of rows) {
      const limit = me.allowance[name];
      const offered = me.offered.length ? me.offered.join(", ") : "none at the moment";
      write(value, name === "models" ? offered : limitWords(name, limit, me.zone));
      const where = origin(me.rules?.[name]);
      write(from, where && (limit ?? "") !== "" ? `(${where})` : "");
    }
  };
}

const standing = document.getElementById("standing");
const today = meter("today");
const month = meter("this month");
document.getElementById("meters").append(today.node, month.node, element("p", {
  className: "quiet", id: "zone",
}));
const showRules = rulesOf(document.getElementById("rules"));
const chart = hourChart("Your tokens");
document.getElementById("own-hours").append(chart.node);
let state;

function show(me) {
  const words = standingWords(me);
  write(standing, words);
  standing.dataset.state = me.standing.state;
  if (state !== undefined && state !== me.standing.state) say(words);
  state = me.standing.state;
  today.update(me.tokens_today + me.elsewhere.day, me.allowance.tokens_per_day, me.elsewhere.day);
  month.update(me.tokens_month + me.elsewhere.month, me.allowance.tokens_per_month, me.elsewhere.month);
  write(document.getElementById("zone"), `Days and months begin at midnight, ${me.zone}.`);
  showRules(me);
}

watch(async () => {
  try {
    show(await ask("api/me"));
  } catch (problem) {
    // An admin may be none of the users; everything else goes on.
    if (problem.status !== 403) throw problem;
    write(standing, problem.message);
    standing.dataset.state = "closed";
  }
}, EVERY_MS, teller("me"));
watch(async () => chart.update(await ask("api/hours?days=7")), HOURS_EVERY_MS, teller("own hours"));

for (const button of document.querySelectorAll("[data-copies]")) {
  button.addEventListener("click", async () => {
    const cell = document.getElementById(button.dataset.copies);
    try {
      await navigator.clipboard.writeText(cell.textContent);
      say("Copied.");
    } catch {
      getSelection().selectAllChildren(cell);
      say("The browser does not let the page copy; the cell is selected, press Ctrl+C.");
    }
  });
}
