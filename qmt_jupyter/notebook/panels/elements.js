// Small things that every panel is built of. Text from elsewhere becomes text, never markup.

function element(name, properties, ...children) {
  const { attributes, ...rest } = properties ?? {};
  const made = Object.assign(document.createElement(name), rest);
  for (const [key, value] of Object.entries(attributes ?? {})) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Written only where it differs: what is selected or read aloud stays undisturbed.
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function button(label, press, properties) {
  const made = element("button", { type: "button", textContent: label, ...properties });
  made.addEventListener("click", press);
  return made;
}

let newest = 0;
function freshId(prefix) {
  newest += 1;
  return `qmt-${prefix}-${newest}-${Math.random().toString(36).slice(2, 8)}`;
}

function count(number, what) {
  return `${number.toLocaleString()} ${what}${number === 1 ? "" : "s"}`;
}

// A length of time in seconds, roughly and short.
function lasting(seconds) {
  for (const [unit, size] of [["d", 86_400], ["h", 3_600], ["min", 60]]) {
    if (seconds >= 2 * size) return `${Math.round(seconds / size)} ${unit}`;
  }
  return `${Math.max(0, Math.round(seconds))} s`;
}

function clockTime(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

// A question in place of the button that asks it. `act` runs when it is confirmed; Escape, or the
// other button, takes it back. The focus goes to the question and returns.
function confirmed(opener, question, yes, act) {
  const place = element("span", { className: "qmt-confirm", hidden: true });
  const close = () => {
    const within = place.contains(document.activeElement);
    place.hidden = true;
    place.replaceChildren();
    opener.hidden = false;
    if (within) opener.focus({ preventScroll: true });
  };
  opener.addEventListener("click", () => {
    const sure = button(yes, () => {
      close();
      act();
    }, { className: "qmt-grave" });
    const words = element("span", { id: freshId("question"), textContent: question() });
    place.setAttribute("role", "group");
    place.setAttribute("aria-labelledby", words.id);
    place.replaceChildren(words, sure, button("Keep", close));
    place.hidden = false;
    opener.hidden = true;
    sure.focus({ preventScroll: true });
    place.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
  place.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    close();
  });
  return element("span", { className: "qmt-asked" }, opener, place);
}
