const HIDE_AFTER = 60_000;
const ANSWER_WITHIN = 5_000;

function element(name, properties, parent) {
  const made = Object.assign(document.createElement(name), properties);
  parent.appendChild(made);
  return made;
}

function render({ model, el }) {
  const card = element("section", { className: "qmt-card" }, el);
  card.setAttribute("aria-label", "Invite");
  element("p", { className: "qmt-terms", textContent: model.get("terms") }, card);
  const buttons = element("div", { className: "qmt-buttons" }, card);
  const show = element("button", { type: "button", textContent: "Show link and QR code" }, buttons);
  const copy = element("button", { type: "button", textContent: "Copy link", hidden: true }, buttons);
  const secret = element("div", { className: "qmt-secret", hidden: true }, card);
  const said = element("p", { className: "qmt-said" }, card);
  said.setAttribute("role", "status");
  show.setAttribute("aria-expanded", "false");
  let link = "";
  let timer = 0;
  let asked = 0;

  function hide() {
    clearTimeout(timer);
    link = "";
    secret.replaceChildren();
    secret.hidden = copy.hidden = true;
    show.textContent = "Show link and QR code";
    show.setAttribute("aria-expanded", "false");
  }

  function reveal(message) {
    // A second view of this card did not ask.
    if (!asked || typeof message?.link !== "string") return;
    clearTimeout(asked);
    asked = 0;
    clearTimeout(timer);
    link = message.link;
    const picture = element("img", { alt: "QR code of the invite link", width: 240 }, secret);
    picture.src = `data:image/svg+xml;base64,${btoa(message.svg)}`;
    const text = element("input", { type: "text", readOnly: true, value: link }, secret);
    text.setAttribute("aria-label", "Invite link");
    secret.replaceChildren(picture, text);
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
      said.textContent = "No answer: the kernel is busy, or no longer runs this host.";
    }, ANSWER_WITHIN);
    model.send({ ask: "show" });
  });
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(link);
      said.textContent = "Copied. Whoever has the link can use the invite.";
    } catch {
      secret.querySelector("input")?.select();
      said.textContent = "Press Ctrl-C to copy the marked link.";
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
