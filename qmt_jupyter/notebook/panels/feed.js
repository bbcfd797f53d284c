// What a panel and its kernel say to each other, and what is shown while nobody answers.

const WATCH_EVERY = 10_000;
const ANSWER_WITHIN = 5_000;

// One view's line to the kernel. `ask` gives a promise of the answer; it is rejected with a
// sentence where there is a problem. `slow` is called when no answer has come in time.
class Kernel {
  constructor(model, heard) {
    this.model = model;
    this.heard = heard;
    this.waiting = new Map();
    this.ahead = 0;
    this.onMessage = (message) => this.take(message);
    model.on("msg:custom", this.onMessage);
  }

  take(message) {
    if (typeof message !== "object" || message === null) return;
    if (typeof message.now === "number") this.ahead = message.now - Date.now() / 1000;
    if (message.view && typeof message.view === "object") this.heard(message.view);
    const asked = this.waiting.get(message.answer);
    if (!asked) return; // another view of the same panel has asked
    this.waiting.delete(message.answer);
    clearTimeout(asked.timer);
    if (message.problem) asked.fail(new Error(String(message.problem)));
    else asked.done(message);
  }

  // Seconds since 1970 on the kernel's clock.
  now() {
    return Date.now() / 1000 + this.ahead;
  }

  ask(name, given, slow) {
    const id = freshId(name);
    return new Promise((done, fail) => {
      const timer = setTimeout(() => slow?.(), ANSWER_WITHIN);
      this.waiting.set(id, { done, fail, timer });
      try {
        this.model.send({ ...given, ask: name, id });
      } catch {
        this.waiting.delete(id);
        clearTimeout(timer);
        fail(new Error("The kernel has ended. Run the cell again."));
      }
    });
  }

  // What is answered later than this is not wanted any more.
  forget() {
    const asked = [...this.waiting.values()];
    this.waiting.clear();
    for (const { timer, fail } of asked) {
      clearTimeout(timer);
      fail(new Error("The kernel was lost before it answered. Look whether it is done, and ask again."));
    }
  }

  close() {
    this.forget();
    this.model.off("msg:custom", this.onMessage);
  }
}

// Makes a panel's `render`. `build(live, kernel, say)` fills the live part and returns
// `update(view)`, and, as it likes, `tick()` (each second), `quiet(isQuiet)` and `close()`.
// Until the kernel answers, and where there is none, the calm view is shown.
function panel(label, build) {
  return ({ model, el }) => {
    const frozen = model.get("frozen") ?? {};
    const calm = element("div", { className: "qmt-calm" });
    const live = element("div", { className: "qmt-live", hidden: true });
    const note = element("p", { className: "qmt-note", hidden: true, attributes: { role: "status" } });
    const said = element("p", { className: "qmt-said", attributes: { role: "status" } });
    const section = element(
      "section", {
        className: "qmt-panel",
        // Otherwise JupyterLab takes Enter, and letters, for commands to the notebook.
        attributes: { "aria-label": label, "data-lm-suppress-shortcuts": "true" },
      },
      calm, live, note, said,
    );
    // While the panel is here, the text that stands for it in a file without it is not needed. In
    // JupyterLab and Notebook the text's own style knows this, place by place: a copy of the file
    // may be open in the same page, where there is no panel.
    if (/^[0-9a-f]{1,32}$/.test(frozen.id)) {
      const text = `.qmt-frozen[data-panel="${frozen.id}"]:not(.jp-OutputArea *)`;
      const rule = `${text} { display: none !important; }`;
      section.append(element("style", { textContent: rule }));
    }
    el.append(section);

    const drawCalm = () => {
      const { title = "", lines = [] } = model.get("frozen") ?? {};
      calm.replaceChildren(
        element("p", { className: "qmt-title", textContent: title }),
        ...lines.map((line) => element("p", { textContent: line })),
      );
    };
    const showLive = (isLive) => {
      live.hidden = !isLive;
      calm.hidden = isLive;
    };
    const say = (text) => write(said, text ?? "");
    let heardAt = 0;
    let problem = "";
    let late = 0;
    // A busy kernel may tell, and only not answer. The sentence is read aloud: it changes seldom.
    const noted = () => {
      const tells = Date.now() - heardAt < ANSWER_WITHIN;
      const at = new Date(heardAt).toLocaleTimeString();
      write(note, tells
        ? "The kernel is busy: what is asked waits."
        : `The kernel is busy or has ended. This was so at ${at}.`);
    };
    const quiet = (isQuiet) => {
      note.hidden = !isQuiet;
      if (isQuiet) noted();
      section.classList.toggle("qmt-quiet", isQuiet);
      shown.quiet?.(isQuiet);
    };
    const kernel = new Kernel(model, (view) => {
      heardAt = Date.now();
      if (view.problem) say(view.problem);
      else shown.update(view);
      // What was said of the view is over with it; what was said of an action stays.
      if (problem && !view.problem && said.textContent === problem) say("");
      problem = view.problem ?? "";
      if (!note.hidden) noted();
      showLive(!view.problem || !live.hidden);
    });
    const shown = build(live, kernel, say);
    const watch = (fresh) => {
      clearTimeout(late);
      if (heardAt) late = setTimeout(() => quiet(true), ANSWER_WITHIN);
      kernel.ask("watch", { fresh: fresh === true }).then(() => {
        clearTimeout(late);
        if (heardAt) quiet(false);
      }, () => {}); // there is no kernel any more, and the calm view says so
    };
    // The kernel was restarted or is gone: what it ran has ended with it.
    const lost = () => {
      const before = heardAt;
      kernel.forget();
      watch(true);
      setTimeout(() => {
        if (heardAt !== before) return;
        heardAt = 0;
        clearTimeout(late);
        quiet(false);
        showLive(false);
      }, ANSWER_WITHIN - 100);
    };
    const looked = () => document.hidden || watch(true);

    drawCalm();
    model.on("change:frozen", drawCalm);
    model.on("comm_live_update", lost);
    document.addEventListener("visibilitychange", looked);
    const watching = setInterval(() => document.hidden || watch(false), WATCH_EVERY);
    const ticking = setInterval(() => live.hidden || shown.tick?.(), 1_000);
    watch(true);
    return () => {
      clearInterval(watching);
      clearInterval(ticking);
      clearTimeout(late);
      document.removeEventListener("visibilitychange", looked);
      model.off("change:frozen", drawCalm);
      model.off("comm_live_update", lost);
      kernel.close();
      shown.close?.();
    };
  };
}
