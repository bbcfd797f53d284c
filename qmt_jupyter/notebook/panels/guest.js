const STATES = {
  connected: "connected",
  returning: "lost; looking for it, and what is asked waits",
  away: "not connected",
};

function roundTrip(milliseconds) {
  return milliseconds < 1 ? "under 1 ms" : `${Math.round(milliseconds)} ms`;
}

// How much of a budget is left, as a bar that says it in words too.
function budgetBar() {
  const filled = element("div", { className: "qmt-filled" });
  const bar = element("div", {
    className: "qmt-bar", attributes: { role: "meter", "aria-valuemin": "0" },
  }, filled);
  const words = element("span", { id: freshId("budget") });
  bar.setAttribute("aria-labelledby", words.id);
  const node = element("div", { className: "qmt-budget" }, bar, words);
  return {
    node,
    update({ what, left, of }, shared) {
      const share = of > 0 ? Math.min(1, Math.max(0, left / of)) : 0;
      filled.style.width = `${100 * share}%`;
      bar.setAttribute("aria-valuemax", of);
      bar.setAttribute("aria-valuenow", Math.min(left, of));
      const whose = shared ? "of the invite's" : "of your";
      write(words, `${left.toLocaleString()} ${whose} ${count(of, what.slice(0, -1))} left`);
      node.classList.toggle("qmt-low", share < 0.1);
    },
  };
}

function modelWords({ name, context, busy, slots, embeds }) {
  const facts = [];
  if (embeds) facts.push("embeddings");
  if (context) facts.push(`${context.toLocaleString()} tokens of context`);
  if (slots) facts.push(`${busy ?? 0} of ${slots} busy`);
  else if (busy) facts.push(`${busy} busy`);
  return facts.length ? `${name}: ${facts.join(", ")}` : name;
}

function requestWords({ running, waiting }) {
  if (!running) return "";
  const said = [`${count(running, "request")} of yours under way`];
  for (const before of waiting) said.push(before ? `one waits, ${before} before it` : "one is next");
  return `${said.join("; ")}.`;
}

function endWords(ends, renewed, now) {
  if (renewed) return "Your seat is renewed while the JupyterHub lets you.";
  if (ends === null) return "The invite has no end.";
  return ends > now ? `The invite ends in ${lasting(ends - now)}.` : "The invite has ended.";
}

// One host: its lines are made once and written again, so that what is selected or has the focus
// stays as it is.
function hostCard(kernel, say, leave) {
  const name = element("strong", { id: freshId("host") });
  const state = element("span", { className: "qmt-state" });
  const problem = element("p", { className: "qmt-problem" });
  const requests = element("p", { attributes: { role: "status" } });
  const models = element("ul", { className: "qmt-models" });
  const budgets = element("div", {});
  const used = element("p", { className: "qmt-hint" });
  const ends = element("p", { className: "qmt-hint" });
  const opener = button("Leave", () => {});
  let id = "";
  let until = null;
  let renewed = false;
  const leaving = confirmed(
    opener, () => `Leave ${name.textContent}? What you are asking it ends.`, "Leave",
    () => leave("leave", { host: id }, [opener]),
  );
  const head = element("div", { className: "qmt-head" }, element("span", {}, name, " ", state), leaving);
  const node = element("article", {
    className: "qmt-host", attributes: { "aria-labelledby": name.id },
  }, head, problem, requests, models, budgets, used, ends);
  const bars = new Map();

  function rewritten(list, texts) {
    while (list.children.length > texts.length) list.lastElementChild.remove();
    while (list.children.length < texts.length) list.append(element("li", {}));
    texts.forEach((text, at) => write(list.children[at], text));
  }

  function tick() {
    write(ends, endWords(until, renewed, kernel.now()));
  }

  function update(host) {
    id = host.id;
    until = host.ends;
    renewed = host.renewed;
    write(name, host.mesh ? `${host.mesh} (${id.slice(-8)})` : id.slice(-8));
    const way = host.path ? `, ${host.path}, ${roundTrip(host.rtt_ms)}` : "";
    write(state, `${STATES[host.state] ?? host.state}${way}`);
    node.dataset.state = host.state;
    write(problem, host.problem ?? "");
    problem.hidden = !host.problem;
    // What a host offered, and what is left there, is of no use while it has turned one away.
    const useless = host.state === "away";
    budgets.hidden = ends.hidden = useless;
    write(requests, requestWords(host));
    requests.hidden = !host.running;
    const more = host.more_models ? [`and ${host.more_models} more: %qmt_models lists them`] : [];
    rewritten(models, [...host.models.map(modelWords), ...more]);
    models.hidden = useless || models.children.length === 0;
    for (const [what, bar] of bars) {
      if (host.budgets.some((each) => each.what === what)) continue;
      bar.node.remove();
      bars.delete(what);
    }
    for (const budget of host.budgets) {
      if (!bars.has(budget.what)) {
        bars.set(budget.what, budgetBar());
        budgets.append(bars.get(budget.what).node);
      }
      bars.get(budget.what).update(budget, host.shared);
    }
    const { requests: made, prompt_tokens: given, completion_tokens: got } = host.used;
    const also = host.also ? ` The invite allows ${host.also}.` : "";
    write(used, `So far ${count(made, "request")}, ${count(given, "token")} in, ${got.toLocaleString()} out.${also}`);
    tick();
  }

  return { node, update, tick };
}

export default {
  render: panel("Joined hosts", (live, kernel, say) => {
    const title = element("p", { className: "qmt-title", attributes: { role: "status" } });
    const openAll = button("Leave all", () => {});
    const list = element("div", { className: "qmt-hosts" });
    const cards = new Map();

    async function leave(what, given, buttons) {
      for (const each of buttons) each.disabled = true;
      say("");
      try {
        await kernel.ask(what, given, () => say("No answer yet: the kernel is busy, or has ended."));
        say("");
      } catch (error) {
        say(error.message);
      } finally {
        for (const each of buttons) each.disabled = false;
      }
    }

    const leavingAll = confirmed(
      openAll, () => `Leave all ${cards.size} hosts?`, "Leave all", () => leave("leave_all", {}, [openAll]),
    );
    live.append(element("div", { className: "qmt-head" }, title, leavingAll), list);
    return {
      update({ hosts }) {
        const askable = hosts.some((host) => host.state !== "away");
        write(title, hosts.length
          ? `Joined ${count(hosts.length, "host")}${askable ? ". Ask with %%chat." : "; none can be asked now."}`
          : "No host is joined now. %qmt_join with an invite link joins one.");
        leavingAll.hidden = hosts.length < 2;
        const kept = new Set(hosts.map((host) => host.id));
        for (const [id, card] of cards) {
          if (kept.has(id)) continue;
          card.node.remove();
          cards.delete(id);
        }
        for (const host of hosts) {
          if (!cards.has(host.id)) {
            cards.set(host.id, hostCard(kernel, say, leave));
            list.append(cards.get(host.id).node);
          }
          cards.get(host.id).update(host);
        }
      },
      tick() {
        for (const card of cards.values()) card.tick();
      },
      // Heard minutes later, a click would leave a host that is needed by then.
      quiet(isQuiet) {
        for (const each of live.querySelectorAll("button")) each.disabled = isQuiet;
      },
    };
  }),
};
