const SILENT_AFTER = 15_000;
const ASKED_EVERY = 400;
const ASKED_AT_MOST = 25;

function element(name, properties, parent) {
  const made = Object.assign(document.createElement(name), properties);
  parent.appendChild(made);
  return made;
}

function render({ model, el }) {
  const strip = element("div", { className: "qmt-strip", hidden: true }, el);
  strip.setAttribute("role", "group");
  strip.setAttribute("aria-label", "Answer being written");
  const stop = element("button", { type: "button", textContent: "Stop" }, strip);
  stop.title = "End this answer here and on the host; its text so far stays";
  // Only what changes seldom is announced; the numbers are there to be read.
  const phase = element("span", { className: "qmt-phase" }, strip);
  phase.setAttribute("role", "status");
  const figures = element("span", { className: "qmt-figures" }, strip);
  let silence = 0;

  function say(text) {
    if (phase.textContent !== text) phase.textContent = text;
  }

  function wait() {
    clearTimeout(silence);
    silence = setTimeout(() => say("The kernel says nothing; ■ interrupts it."), SILENT_AFTER);
  }

  function told(message) {
    if (typeof message?.phase !== "string" || typeof message?.figures !== "string") return;
    wait();
    clearInterval(asking);
    strip.hidden = false;
    if (!stop.disabled) say(message.phase);
    figures.textContent = message.figures;
  }

  stop.addEventListener("click", () => {
    stop.disabled = true;
    say("Stopping…");
    wait();
    model.send({ ask: "stop" });
  });
  model.on("msg:custom", told);
  // What is sent before JupyterLab has a subshell for this widget waits for the cell's end.
  let asked = 0;
  const asking = setInterval(() => {
    model.send({ ask: "watch" });
    asked += 1;
    if (asked >= ASKED_AT_MOST) clearInterval(asking);
  }, ASKED_EVERY);
  return () => {
    clearInterval(asking);
    clearTimeout(silence);
    model.off("msg:custom", told);
  };
}

export default { render };
