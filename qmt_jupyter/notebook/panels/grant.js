// The form for a new invite. What is typed is judged by the kernel, which answers with a sentence.

const GRANTED = [
  { name: "name", label: "Mesh name", size: 18 },
  { name: "uses", label: "Guests (0: any number)", value: "1", size: 6, inputMode: "numeric" },
  { name: "ttl", label: "Lives for (90s, 15m, 24h, 7d, none)", value: "24h", size: 6 },
  { name: "tokens", label: "Tokens in all", size: 10, inputMode: "numeric", placeholder: "no limit" },
  { name: "concurrent", label: "Requests at once", size: 6, inputMode: "numeric", placeholder: "no limit" },
  { name: "requests_per_minute", label: "Requests a minute", size: 6, inputMode: "numeric", placeholder: "no limit" },
];

function grantForm({ kernel, say, made }) {
  const inputs = {};
  const fields = GRANTED.map(({ name, label, value = "", size, inputMode = "text", placeholder = "" }) => {
    const input = element("input", {
      type: "text", name, value, size, inputMode, placeholder, maxLength: 100,
      autocomplete: "off", spellcheck: false,
    });
    inputs[name] = input;
    return element("label", {}, element("span", { textContent: label }), input);
  });
  const each = element("input", { type: "checkbox", name: "per_guest" });
  const problem = element("p", { className: "qmt-problem", attributes: { role: "alert" } });
  const submit = element("button", { type: "submit", textContent: "Make invite" });
  const form = element(
    "form", { className: "qmt-form", hidden: true, noValidate: true, attributes: { "aria-label": "New invite" } },
    element("div", { className: "qmt-fields" }, ...fields),
    element("label", { className: "qmt-check" }, each, element("span", { textContent: "The limits hold for each guest by itself" })),
    problem,
    element("div", { className: "qmt-buttons" }, submit, button("Cancel", () => close())),
  );
  const opener = button("New invite", () => (form.hidden ? open() : close()), {
    attributes: { "aria-expanded": "false" },
  });

  function open() {
    form.hidden = false;
    opener.setAttribute("aria-expanded", "true");
    inputs.uses.focus();
    inputs.uses.select();
  }

  function close() {
    form.hidden = true;
    write(problem, "");
    opener.setAttribute("aria-expanded", "false");
    opener.focus({ preventScroll: true });
  }

  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
    if (event.key !== "Enter" || event.target.localName !== "input") return;
    event.preventDefault(); // JupyterLab keeps the browser from doing it
    if (!submit.disabled) form.requestSubmit();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const given = { per_guest: each.checked };
    for (const [name, input] of Object.entries(inputs)) given[name] = input.value;
    submit.disabled = true;
    write(problem, "");
    const slow = () => write(problem, "The kernel is busy; the invite is made as soon as it is free.");
    try {
      const answer = await kernel.ask("invite", given, slow);
      close();
      say(`${answer.said} Its link is shown on demand.`);
      made(answer.id);
    } catch (error) {
      write(problem, error.message);
    } finally {
      submit.disabled = false;
    }
  });

  return {
    opener,
    form,
    // The name that the host's invites have, until somebody types another.
    named(name) {
      if (inputs.name.value === "" && document.activeElement !== inputs.name) inputs.name.value = name;
    },
  };
}
