// Tokens by hour of the last seven days: a picture, an hour at a time by keys, and a table.

import { drawn, element, freshId, set, write } from "./elements.js";
import { count, day, here, moment, number } from "./words.js";

const WIDTH = 672;
const HEIGHT = 120;
const HOUR = 3600;
const MOST = 31 * 24;
const LATE = 0.85; // further to the right a narrow chart has no room for a day's name
const LAST_NAMED = 0.95; // and no chart has

/** Round upwards to a number that reads well. */
function rounded(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, value)));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((each) => each * power).find((each) => each >= value);
}

export function hourChart(what) {
  const hatch = freshId("hatch");
  const picture = drawn("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", class: "chart",
  });
  const pattern = drawn("pattern", {
    id: hatch, width: 4, height: 4, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)",
  });
  pattern.append(drawn("rect", { width: 2, height: 4, class: "prompts" }));
  const defs = drawn("defs");
  defs.append(pattern);
  const lines = drawn("g", { class: "lines" });
  const bars = drawn("g");
  const mark = drawn("rect", { class: "mark", y: 0, height: HEIGHT, width: 0 });
  picture.append(defs, lines, mark, bars);

  const highest = element("span");
  const lowest = element("span", { textContent: "0" });
  const days = element("div", { className: "days", attributes: { "aria-hidden": "true" } });
  const summary = element("p", { className: "quiet" });
  const range = element("input", {
    type: "range", min: 0, step: 1, disabled: true, attributes: { "aria-label": `${what}, hour` },
  });
  const chosen = element("output", { className: "chosen" });
  const body = element("tbody");
  const table = element("table", {},
    element("caption", { className: "unseen", textContent: `${what} by hour` }),
    element("thead", {}, element("tr", {},
      ...[`hour (${here})`, "in prompts", "in answers"].map((title, at) =>
        element("th", { textContent: title, scope: "col", className: at ? "number" : "" })))), body);
  const more = element("details", {}, element("summary", { textContent: "The same as a table" }),
    element("div", { className: "scroll", attributes: { tabindex: "0", role: "region", "aria-label": `${what} by hour` } }, table));
  const key = (className, text) => element("span", { className: "key" },
    element("span", { className, attributes: { "aria-hidden": "true" } }), text);
  const node = element("figure", { className: "hours" },
    element("figcaption", { className: "row" }, key("key-answers", "in answers"), key("key-prompts", "in prompts"), summary),
    element("div", { className: "plot" },
      element("div", { className: "scale", attributes: { "aria-hidden": "true" } }, highest, lowest),
      element("div", { className: "drawing" }, picture, range, days)),
    chosen, more);
  let shown = [];
  let drawnFrom = "";

  function choose() {
    const hour = shown[range.value];
    if (!hour) return;
    const [start, prompt, answer] = hour;
    const step = WIDTH / shown.length;
    mark.setAttribute("x", (range.value * step).toFixed(2));
    mark.setAttribute("width", step.toFixed(2));
    const words = `${moment(start)}: ${count(answer, "token")} in answers, ${number(prompt)} in prompts`;
    write(chosen, words);
    range.setAttribute("aria-valuetext", words);
  }

  function draw() {
    const step = WIDTH / shown.length;
    const top = rounded(Math.max(...shown.map(([, prompt, answer]) => prompt + answer)));
    const scale = HEIGHT / top;
    write(highest, number(top));
    bars.replaceChildren();
    lines.replaceChildren();
    const rows = [];
    const names = [];
    shown.forEach(([start, prompt, answer], at) => {
      const begins = new Date(start * 1000).getHours() === 0;
      if (begins) {
        const x = (at * step).toFixed(2);
        lines.append(drawn("line", { x1: x, x2: x, y1: 0, y2: HEIGHT }));
        if (at < LAST_NAMED * shown.length) names.push([at, day(start).split(" ")]);
      }
      if (!prompt && !answer) return;
      const place = { x: (at * step + 0.3).toFixed(2), width: Math.max(0.5, step - 0.6).toFixed(2) };
      const low = answer * scale;
      const high = prompt * scale;
      bars.append(
        drawn("rect", { ...place, class: "answers", y: (HEIGHT - low).toFixed(2), height: low.toFixed(2) }),
        drawn("rect", { ...place, class: "outlined", fill: `url(#${hatch})`, y: (HEIGHT - low - high).toFixed(2), height: high.toFixed(2) }),
      );
      rows.push(element("tr", {},
        element("th", { scope: "row", textContent: moment(start) }),
        element("td", { className: "number", textContent: number(prompt) }),
        element("td", { className: "number", textContent: number(answer) })));
    });
    days.replaceChildren(...names.map(([at, name]) => {
      const label = element("span", { className: at < LATE * shown.length ? "" : "late" }, name[0], element("span", { className: "date", textContent: ` ${name[1]}` }));
      label.style.left = `${(100 * at) / shown.length}%`;
      return label;
    }));
    body.replaceChildren(...rows.reverse());
  }

  function update({ since, now, hours }) {
    const from = JSON.stringify([since, Math.floor(now / HOUR), hours]);
    if (from === drawnFrom) return;
    drawnFrom = from;
    const known = new Map(hours.map(([start, prompt, answer]) => [Math.floor(start / HOUR), [prompt, answer]]));
    const first = Math.max(Math.floor(since / HOUR), Math.floor(now / HOUR) - MOST);
    const wasLast = range.disabled || Number(range.value) === shown.length - 1;
    shown = [];
    for (let hour = first; hour <= Math.floor(now / HOUR); hour += 1) {
      shown.push([hour * HOUR, ...(known.get(hour) ?? [0, 0])]);
    }
    const prompts = shown.reduce((sum, each) => sum + each[1], 0);
    const answers = shown.reduce((sum, each) => sum + each[2], 0);
    const words = `${count(answers, "token")} in answers, ${number(prompts)} in prompts in ${count(Math.round(shown.length / 24), "day")}`;
    write(summary, words);
    picture.setAttribute("aria-label", `${what}: ${words}. The table below has every hour.`);
    set(more, "hidden", !prompts && !answers);
    range.max = shown.length - 1;
    if (wasLast) range.value = shown.length - 1;
    range.disabled = false;
    draw();
    choose();
  }

  range.addEventListener("input", choose);
  return { node, update };
}
