const STATES = {
  answering: "▶ answering", waiting: "◷ waiting", connected: "● connected", away: "○ away",
  revoked: "✕ revoked", ended: "✕ ended",
};
const STATE_ORDER = Object.keys(STATES);
const HERE = new Set(["answering", "waiting", "connected"]);

function headed(text, ...children) {
  const head = element("div", {
    className: "qmt-heading", textContent: text, attributes: { role: "heading", "aria-level": "3" },
  });
  return element("div", { className: "qmt-part" }, head, ...children);
}

function leftOf({ left, shared }, empty) {
  const said = Object.entries(left ?? {})
    .filter(([, number]) => number !== null)
    .map(([what, number]) => `${number.toLocaleString()} ${what}`);
  if (said.length === 0) return empty;
  return said.join(", ") + (shared ? " (shared)" : "");
}

function modelList() {
  const list = element("ul", { className: "qmt-shared" });
  const lines = new Map();
  return {
    node: list,
    update(models, more) {
      const kept = new Set(models.map((model) => model.name));
      for (const [name, { line }] of lines) {
        if (!kept.has(name)) {
          line.remove();
          lines.delete(name);
        }
      }
      for (const { name, slots, busy, waiting } of models) {
        if (!lines.has(name)) {
          const load = element("span", {});
          const bar = element("span", { className: "qmt-loaded" });
          const line = element(
            "li", {}, element("span", { className: "qmt-model", textContent: name }),
            element("span", { className: "qmt-load", attributes: { "aria-hidden": "true" } }, bar), load,
          );
          lines.set(name, { line, load, bar });
          list.append(line);
        }
        const { load, bar } = lines.get(name);
        const running = Math.min(busy, slots);
        write(load, `${running} of ${slots} busy${waiting ? `, ${waiting} waiting` : ""}`);
        bar.style.width = `${slots ? (100 * running) / slots : 0}%`;
      }
      list.dataset.more = more ? `and ${more} more` : "";
    },
  };
}

// The invites, each with its own secret. What has the focus stays where it is.
function inviteList({ kernel, act, say }) {
  const open = element("ul", { className: "qmt-invites" });
  // What has no link to show, here or any more.
  const folded = element("ul", { className: "qmt-invites" });
  const summary = element("summary", {});
  const fold = element("details", { hidden: true }, summary, folded);
  const none = element("p", { className: "qmt-hint", textContent: "No invite whose link is known here is open." });
  const lines = new Map();
  let views = [];

  function newLine(id) {
    const name = element("span", { className: "qmt-title" });
    const facts = element("span", {});
    const secret = secretBox({
      what: "link", label: "link and QR code", say,
      ask: (slow) => kernel.ask("show", { invite: id }, slow),
      warning: "Whoever has the link can use the invite.",
    });
    const revoke = button("Revoke", () => {}, {});
    const asked = confirmed(
      revoke,
      () => {
        const { uses } = views.find((view) => view.id === id);
        return uses
          ? `Revoke this invite, and ${count(uses, "guest")} with it, for good?`
          : "Revoke this invite for good?";
      },
      "Revoke invite",
      () => act("revoke", { which: id }, "Revoking…"),
    );
    const buttons = element("div", { className: "qmt-buttons" }, ...secret.buttons, asked);
    const line = element("li", {}, element("p", {}, name, " ", facts), buttons, secret.box);
    for (const each of [...secret.buttons, revoke]) each.setAttribute("aria-describedby", (name.id ||= freshId("invite")));
    return { line, name, facts, secret, buttons };
  }

  function tick() {
    for (const view of views) {
      const isOpen = view.state === "open";
      const said = [`${view.uses} of ${view.most || "any number"} used`];
      if (view.here) said.push(`${view.here} here now`);
      if (isOpen) said.push(view.ends === null ? "no end" : `${lasting(view.ends - kernel.now())} left`);
      else said.push(view.state);
      if (view.limits) said.push(`limits: ${view.limits}`);
      const left = leftOf({ left: view.left }, "");
      if (left) said.push(`${left} left`);
      write(lines.get(view.id).facts, said.join(" · "));
    }
  }

  function update(invites, more) {
    views = invites;
    const kept = new Set(invites.map((view) => view.id));
    for (const [id, { line, secret }] of lines) {
      if (kept.has(id)) continue;
      secret.hide();
      line.remove();
      lines.delete(id);
    }
    let others = 0;
    const heads = new Map([[open, open.firstElementChild], [folded, folded.firstElementChild]]);
    for (const view of invites) {
      if (!lines.has(view.id)) lines.set(view.id, newLine(view.id));
      const { line, name, secret, buttons } = lines.get(view.id);
      const isOpen = view.state === "open";
      // A used-up invite can still be revoked: that stops the guests whom it admitted.
      const isOver = view.state === "revoked" || view.state === "expired";
      const list = isOver || !view.linked ? folded : open;
      if (heads.get(list) === line) heads.set(list, line.nextElementSibling);
      else list.insertBefore(line, heads.get(list));
      write(name, `${view.name} (${view.id.slice(0, 8)})`);
      buttons.hidden = isOver;
      for (const each of secret.buttons) each.hidden = !isOpen || !view.linked;
      if (!isOpen) secret.hide();
      others += list === folded;
    }
    fold.hidden = others === 0;
    none.hidden = others < invites.length;
    const unseen = more ? `, and ${more} in %qmt_usage` : "";
    write(summary, `${count(others, "invite")} ended, made earlier or made elsewhere${unseen}`);
    tick();
  }

  return {
    nodes: [open, none, fold],
    update,
    tick,
    pointTo: (id) => lines.get(id)?.secret.buttons[0].focus(),
    close: () => lines.forEach(({ secret }) => secret.hide()),
  };
}

function guestTable({ kernel, act }) {
  const seen = (row) => (HERE.has(row.state) ? Infinity : row.seen);
  const ago = (row) => {
    if (HERE.has(row.state)) return "now";
    return row.seen ? `${lasting(kernel.now() - row.seen)} ago` : "never asked";
  };
  const leftOver = (row) => row.left?.tokens ?? row.left?.requests ?? Infinity;
  const number = (key, head) => ({
    key, head, numeric: true, sort: (row) => row[key], text: (row) => row[key].toLocaleString(),
  });
  return dataTable({
    label: "Guests and what they used",
    id: (row) => row.id,
    order: { key: "state", descending: false },
    empty: "Nobody has joined yet.",
    columns: [
      {
        key: "who", head: "Guest", sort: (row) => (row.claim || row.who).toLowerCase(),
        hint(row) {
          const claim = row.claim ? `It calls itself “${row.claim}”, which is only its claim. ` : "";
          return `${claim}By the invite to ${row.invite}.`;
        },
        fill(cell, row) {
          if (!cell.firstChild) {
            const parts = [element("code", {}), element("span", { className: "qmt-hint" })];
            cell.append(element("div", { className: "qmt-who" }, ...parts));
          }
          const [who, claim] = cell.firstChild.children;
          write(who, row.who);
          write(claim, row.claim ? ` says “${row.claim}”` : "");
        },
      },
      { key: "state", head: "State", sort: (row) => STATE_ORDER.indexOf(row.state), text: (row) => STATES[row.state] },
      number("requests", "Requests"),
      { ...number("in", "In"), hint: (row) => count(row.in, "token") },
      { ...number("out", "Out"), hint: (row) => count(row.out, "token") },
      { ...number("speed", "Tokens/s"), text: (row) => (row.speed ? row.speed.toFixed(1) : "") },
      { key: "seen", head: "Last seen", numeric: true, sort: seen, text: ago },
      { key: "left", head: "Left", numeric: true, sort: leftOver, text: (row) => leftOf(row, "no limit") },
      {
        key: "revoke", head: "Revoke",
        fill(cell, row) {
          if (!cell.firstChild) {
            const opener = button("Revoke", () => {}, { attributes: { "aria-label": `Revoke guest ${row.who}` } });
            cell.append(confirmed(
              opener, () => `Stop ${row.who} for good?`, "Revoke guest",
              () => act("revoke", { which: row.id }, "Revoking…"),
            ));
          }
          cell.firstChild.hidden = row.state === "revoked" || row.state === "ended" || row.isOver === true;
        },
      },
    ],
  });
}

export default {
  render: panel("Host", (live, kernel, say) => {
    async function act(name, given, doing) {
      say(doing);
      const slow = () => say("The kernel is busy; this is done as soon as it is free.");
      try {
        say((await kernel.ask(name, given, slow)).said);
      } catch (error) {
        say(error.message);
      }
    }
    let view = null;
    let wanted = null;
    const title = element("p", { className: "qmt-title" });
    const status = element("p", {});
    const stop = button("Stop hosting", () => {}, {});
    const stopping = confirmed(stop, () => {
      const here = view.guests.filter((row) => HERE.has(row.state)).length;
      return here ? `Stop, and show ${count(here, "guest")} out?` : "Stop hosting?";
    }, "Stop hosting now", () => act("stop", {}, "Stopping…"));
    const reach = element("p", { className: "qmt-hint" });
    const models = modelList();
    const invites = inviteList({ kernel, act, say });
    const grant = grantForm({ kernel, say, made: (id) => { wanted = id; } });
    const chart = tokenChart();
    const guests = guestTable({ kernel, act });
    const others = element("p", { className: "qmt-hint" });
    const running = [
      headed("Models", models.node),
      headed("Invites", ...invites.nodes, element("div", { className: "qmt-buttons" }, grant.opener), grant.form),
      headed("Tokens", chart.node),
    ];
    live.append(
      element("div", { className: "qmt-top" }, element("div", {}, title, status), stopping),
      reach, ...running, headed("Guests", guests.node, others),
    );

    function counts() {
      const here = view.guests.filter((row) => HERE.has(row.state)).length;
      const speed = view.guests.reduce((sum, row) => sum + row.speed, view.own.speed);
      const said = [`Hosting since ${clockTime(view.since)}`, `${count(here, "guest")} here`];
      if (speed) said.push(`${speed.toLocaleString([], { maximumFractionDigits: 1 })} tokens/s`);
      if (view.own.requests) said.push(`${count(view.own.requests, "request")} of your own`);
      return `${said.join(" · ")}.`;
    }

    function rest({ earlier, more }) {
      const said = [];
      if (more.guests) said.push(`${count(more.guests, "more guest")}`);
      if (earlier.guests) said.push(`${count(earlier.guests, "guest")} of earlier invites`);
      write(others, said.length ? `${said.join(" and ")}: see %qmt_usage.` : "");
    }

    function update(given) {
      view = given;
      const isOpen = view.state === "hosting";
      for (const part of [...running, stopping, reach]) part.hidden = !isOpen;
      write(title, view.title);
      guests.update(isOpen ? view.guests : view.guests.map((row) => ({ ...row, isOver: true })));
      rest(view);
      if (!isOpen) {
        invites.close();
        write(status, view.total);
        return;
      }
      write(status, counts());
      write(reach, view.reach);
      models.update(view.models, view.more.models);
      invites.update(view.invites, view.more.invites + view.earlier.invites);
      grant.named(view.name);
      if (wanted !== null && view.invites.some(({ id }) => id === wanted)) {
        invites.pointTo(wanted);
        wanted = null;
      }
      chart.update(view.chart, view.since, kernel.now());
    }

    function tick() {
      if (view?.state !== "hosting") return;
      invites.tick();
      chart.update(view.chart, view.since, kernel.now());
      guests.update(view.guests);
    }

    return { update, tick, close: invites.close };
  }),
};
