const HIDE_AFTER = 60_000;
const ANSWER_WITHIN = 5_000;

function element(name, properties, parent) {
  const made = Object.assign(document.createElement(name), properties);
  parent.appendChild(made);
  return made;
}

function render({ model, el }) {
  const card = element("section", { className: "qmt-card" }, el);
  card.setAttribute("aria-label", "Endpoint");
  const address = `Base URL: ${model.get("address")}`;
  element("p", { className: "qmt-terms", textContent: address }, card);
  const buttons = element("div", { className: "qmt-buttons" }, card);
  const show = element("button", { type: "button", textContent: "Show key" }, buttons);
  const copy = element("button", { type: "button", textContent: "Copy key", hidden: true }, buttons);
  const secret = element("div", { className: "qmt-secret", hidden: true }, card);
  const said = element("p", { className: "qmt-said" }, card);
  said.setAttribute("role", "status");
  show.setAttribute("aria-expanded", "false");
  let key = "";
  let timer = 0;
  let asked = 0;

  function hide() {
    clearTimeout(timer);
    key = "";
    secret.replaceChildren();
    secret.hidden = copy.hidden = true;
    show.textContent = "Show key";
    show.setAttribute("aria-expanded", "false");
  }

  function reveal(message) {
    // A second view of this card did not ask.
    if (!asked || typeof message?.key !== "string") return;
    clearTimeout(asked);
    asked = 0;
    clearTimeout(timer);
    key = message.key;
    const text = element("input", { type: "text", readOnly: true, value: key }, secret);
    text.setAttribute("aria-label", "Key");
    secret.replaceChildren(text);
    secret.hidden = copy.hidden = false;
    show.textContent = "Hide";
    show.setAttribute("aria-expanded", "true");
    said.textContent = "";
    timer = setTimeout(hide, HIDE_AFTER);
  }

  show.addEventListener("click", () => {
    if (!secret.hidden) return hide();
    said.textContent = "Asking the kernel…";
    clearTimeout(asked);
    asked = setTimeout(() => {
      asked = 0;
      said.textContent = "No answer: the kernel is busy, or no longer runs this endpoint.";
    }, ANSWER_WITHIN);
    model.send({ ask: "show" });
  });
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(key);
      said.textContent = "Copied. It opens this endpoint alone, until it is stopped.";
    } catch {
      secret.querySelector("input")?.select();
      said.textContent = "Press Ctrl-C to copy the marked key.";
    }
  });
  model.on("msg:custom", reveal);
  return () => {
    clearTimeout(timer);
    clearTimeout(asked);
    model.off("msg:custom", reveal);
  };
}

export default { render };
