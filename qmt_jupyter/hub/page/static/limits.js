// The dialog in which an admin sets limits for one user in place of the policy's.

import { element, freshId, write } from "./elements.js";
import { limitWords } from "./words.js";

const COUNTED = [
  ["tokens_per_day", "Tokens a day"],
  ["tokens_per_month", "Tokens a month"],
  ["concurrent", "Requests at the same time"],
  ["requests_per_minute", "Requests in a minute"],
  ["answer_tokens", "Tokens of one answer"],
  ["priority", "Share while others wait (1 to 100)"],
];
const LISTED = [
  ["hours", "Hours", "One a line, such as Mon-Fri 08:00-12:30. "],
  ["models", "Models", "One a line. "],
];
const FREE = "no limit";

/** What was typed as what is sent: undefined for the policy's. Throws a sentence. */
function typed(name, value) {
  const words = value.trim();
  if (words === "") return undefined;
  if (/^(no limit|none|all|any)$/i.test(words)) return name === "hours" || name === "models" ? [] : null;
  if (name === "hours" || name === "models") return words.split("\n").map((each) => each.trim()).filter(Boolean);
  const digits = words.replace(/[\s,.'_]/g, "");
  if (!/^\d{1,15}$/.test(digits)) throw new Error(`${value} is not a whole number. Leave it empty for the policy's, or write “${FREE}”.`);
  return Number(digits);
}

export function limitsDialog(dialog, change) {
  const title = element("h2", { id: "limits-title" });
  const problem = element("p", { className: "wrong", id: "limits-problem", attributes: { role: "alert" } });
  const fields = [...COUNTED, ...LISTED].map(([name, label, how = ""]) => {
    const id = freshId("limit");
    const hint = element("span", { id: `${id}-hint`, className: "quiet" });
    const many = name === "hours" || name === "models";
    const input = element(many ? "textarea" : "input", {
      id, spellcheck: false, autocomplete: "off", ...(many ? { rows: 2 } : { type: "text", inputMode: "numeric" }),
      attributes: { "aria-describedby": hint.id },
    });
    const node = element("div", { className: many ? "field wide" : "field" },
      element("label", { htmlFor: id, textContent: label }), input, hint);
    return { name, input, hint, how, node };
  });
  const save = element("button", { type: "submit", className: "main", textContent: "Set" });
  const back = element("button", { type: "button", textContent: "Back to the policy" });
  const cancel = element("button", { type: "button", textContent: "Cancel" });
  const form = element("form", { method: "dialog", noValidate: true },
    title,
    element("p", { className: "quiet", textContent: `Leave a field empty for what the policy says, or write “${FREE}”. It holds from the next request on.` }),
    element("div", { className: "fields" }, ...fields.map(({ node }) => node)),
    problem,
    element("div", { className: "row buttons" }, save, back, cancel));
  dialog.append(form);
  let user = "";
  let opener = null;

  async function send(limits, words) {
    write(problem, "");
    form.setAttribute("aria-busy", "true");
    try {
      await change(user, { limits }, words);
      dialog.close();
    } catch (refused) {
      write(problem, refused.message);
    }
    form.removeAttribute("aria-busy");
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const limits = {};
    for (const { name, input } of fields) {
      input.removeAttribute("aria-invalid");
      try {
        const value = typed(name, input.value);
        if (value !== undefined) limits[name] = value;
      } catch (wrong) {
        write(problem, wrong.message);
        input.setAttribute("aria-invalid", "true");
        input.focus();
        return;
      }
    }
    send(Object.keys(limits).length ? limits : null, `${user} has other limits now.`);
  });
  back.addEventListener("click", () => send(null, `${user} has the policy's limits again.`));
  cancel.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => opener?.focus());

  return {
    open(name, state) {
      const entry = state.users.find((each) => each.user === name);
      if (!entry) return;
      user = name;
      opener = document.activeElement;
      title.replaceChildren("Limits of ", element("bdi", { textContent: name }));
      write(problem, "");
      for (const { name: limit, input, hint, how } of fields) {
        const own = entry.limits ?? {};
        const value = own[limit];
        input.removeAttribute("aria-invalid");
        if (!(limit in own)) input.value = "";
        else if (Array.isArray(value)) input.value = value.join("\n") || FREE;
        else input.value = value === null ? FREE : String(value);
        const policy = limitWords(limit, entry.policy?.[limit] ?? (limit === "priority" ? 1 : null), state.zone);
        write(hint, `${how}Policy: ${policy}`);
      }
      dialog.showModal();
      fields[0].input.focus();
    },
  };
}
