// Tokens over time: answers below, prompts on top of them, at most a quarter of an hour.

const BARS = 60;
const LONGEST = 900;
const WIDTH = 600;
const HEIGHT = 90;

function drawn(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function tokenChart() {
  const hatch = freshId("hatch");
  const picture = drawn("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", class: "qmt-chart",
  });
  const pattern = drawn("pattern", {
    id: hatch, width: 4, height: 4, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)",
  });
  pattern.append(drawn("rect", { width: 2, height: 4, class: "qmt-prompts" }));
  const defs = drawn("defs", {});
  defs.append(pattern);
  picture.append(defs, drawn("line", {
    x1: 0, x2: WIDTH, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5, class: "qmt-axis",
  }));
  const step = WIDTH / BARS;
  const bars = Array.from({ length: BARS }, (_, at) => {
    const group = drawn("g", {});
    const place = { x: at * step + 0.5, width: step - 1 };
    const ground = drawn("rect", { x: at * step, width: step, y: 0, height: HEIGHT, fill: "transparent" });
    const answers = drawn("rect", { ...place, class: "qmt-answers" });
    const prompts = drawn("rect", { ...place, fill: `url(#${hatch})`, class: "qmt-outlined" });
    const title = drawn("title", {});
    group.append(title, ground, answers, prompts);
    picture.append(group);
    return { answers, prompts, title };
  });
  const most = element("span", {});
  const total = element("span", {});
  const from = element("span", {});
  const legend = (className, text) => element(
    "span", {}, element("span", { className: `qmt-key ${className}`, attributes: { "aria-hidden": "true" } }), text,
  );
  const node = element(
    "figure", { className: "qmt-figure" },
    element("figcaption", { className: "qmt-legend" },
      legend("qmt-key-answers", "answers"), legend("qmt-key-prompts", "prompts"), total, most),
    picture,
    element("div", { className: "qmt-scale", attributes: { "aria-hidden": "true" } }, from, element("span", { textContent: "now" })),
  );
  let last = "";

  function size(bar, y, height) {
    bar.setAttribute("y", y.toFixed(1));
    bar.setAttribute("height", Math.max(0, height).toFixed(1));
  }

  function update({ series }, since, now) {
    const span = Math.min(LONGEST, Math.max(60, now - since));
    const width = span <= 300 ? 5 : 15;
    const ends = (Math.floor(now / width) + 1) * width;
    const begins = ends - BARS * width;
    const key = `${begins} ${JSON.stringify(series)}`;
    if (key === last) return;
    last = key;
    const sums = bars.map(() => [0, 0]);
    const all = [0, 0];
    for (const [start, prompt, answer] of series) {
      const sum = sums[Math.floor((start - begins) / width)];
      if (!sum) continue;
      sum[0] += prompt;
      sum[1] += answer;
      all[0] += prompt;
      all[1] += answer;
    }
    const highest = Math.max(...sums.map(([prompt, answer]) => prompt + answer));
    const scale = (HEIGHT - 4) / Math.max(1, highest);
    bars.forEach(({ answers, prompts, title }, at) => {
      const [prompt, answer] = sums[at];
      size(answers, HEIGHT - answer * scale, answer * scale);
      size(prompts, HEIGHT - (answer + prompt) * scale, prompt * scale);
      const when = new Date((begins + at * width) * 1000).toLocaleTimeString();
      write(title, `${when}: ${count(answer, "token")} in answers, ${prompt.toLocaleString()} in prompts`);
    });
    write(total, `${all[1].toLocaleString()} out, ${all[0].toLocaleString()} in`);
    write(most, highest ? `highest bar: ${count(highest, "token")} in ${width} s` : "");
    write(from, `${lasting(BARS * width)} ago`);
    const said = `Tokens of the last ${lasting(BARS * width)}: ${all[1].toLocaleString()} in answers, `
      + `${all[0].toLocaleString()} in prompts; at most ${highest.toLocaleString()} in ${width} seconds.`;
    picture.setAttribute("aria-label", said);
  }

  return { node, update };
}
