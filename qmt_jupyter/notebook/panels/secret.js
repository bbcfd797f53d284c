// A secret that is shown on demand and hidden again after a minute. `ask(slow)` gives a promise of
// `{ secret, svg? }`. It is nowhere in the page before and after.

const HIDE_AFTER = 60_000;

function secretBox({ what, warning, ask, say, label }) {
  const box = element("div", { className: "qmt-secret", id: freshId("secret"), hidden: true });
  let timer = 0;
  let held = "";
  let asked = 0;

  const show = button(`Show ${label}`, () => (box.hidden ? reveal() : hide()), {
    attributes: { "aria-expanded": "false", "aria-controls": box.id },
  });
  const copy = button(`Copy ${what}`, () => copyIt());

  function hide() {
    asked += 1; // what comes now was asked for before
    clearTimeout(timer);
    held = "";
    box.replaceChildren();
    box.hidden = true;
    write(show, `Show ${label}`);
    show.setAttribute("aria-expanded", "false");
  }

  async function fetched() {
    say("Asking the kernel…");
    const mine = (asked += 1);
    const answer = await ask(() => {
      if (mine !== asked) return;
      asked += 1; // shown a minute later, somebody else may be looking
      say("No answer: the kernel is busy, or has ended.");
    });
    if (mine !== asked || typeof answer.secret !== "string") return null;
    say("");
    return answer;
  }

  async function reveal() {
    try {
      const answer = await fetched();
      if (!answer) return;
      held = answer.secret;
      const text = element("input", {
        type: "text", readOnly: true, value: held, autocomplete: "off", spellcheck: false,
        attributes: { "aria-label": `The ${what}` },
      });
      text.addEventListener("focus", () => text.select());
      const parts = [text, element("p", { className: "qmt-hint", textContent: "Hidden again after a minute." })];
      if (typeof answer.svg === "string") {
        const picture = element("img", { alt: `QR code of the ${what}`, width: 240, height: 240 });
        picture.src = `data:image/svg+xml;base64,${btoa(answer.svg)}`;
        parts.unshift(picture);
      }
      box.replaceChildren(...parts);
      box.hidden = false;
      box.scrollIntoView({ block: "nearest" }); // it may stand in a list that scrolls
      write(show, "Hide");
      show.setAttribute("aria-expanded", "true");
      clearTimeout(timer);
      timer = setTimeout(hide, HIDE_AFTER);
    } catch (error) {
      say(error.message);
    }
  }

  async function copyIt() {
    try {
      let secret = held;
      if (!secret) secret = (await fetched())?.secret;
      if (!secret) return;
      try {
        await navigator.clipboard.writeText(secret);
        say(`Copied. ${warning}`);
      } catch {
        if (box.hidden) await reveal();
        box.querySelector("input")?.focus();
        say(`Press Ctrl-C (or ⌘C) to copy the marked ${what}.`);
      }
    } catch (error) {
      say(error.message);
    }
  }

  return { buttons: [show, copy], box, hide, shown: () => !box.hidden };
}
