export default {
  render: panel("Invite", (live, kernel, say) => {
    const terms = element("p", { className: "qmt-title" });
    const state = element("p", {});
    const secret = secretBox({
      what: "link", label: "link and QR code", say, ask: (slow) => kernel.ask("show", {}, slow),
      warning: "Whoever has the link can use the invite.",
    });
    const buttons = element("div", { className: "qmt-buttons" }, ...secret.buttons);
    live.append(terms, state, buttons, secret.box);
    return {
      update(view) {
        const open = view.state === "open";
        write(terms, view.terms);
        write(state, open ? `Used by ${count(view.uses, "guest")}.` : `This invite is ${view.state}.`);
        buttons.hidden = !open;
        if (!open) secret.hide();
      },
      close: secret.hide,
    };
  }),
};
