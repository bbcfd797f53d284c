export default {
  render: panel("Endpoint", (live, kernel, say) => {
    const address = element("p", { className: "qmt-title" });
    const secret = secretBox({
      what: "key", label: "key", say, ask: (slow) => kernel.ask("show", {}, slow),
      warning: "It opens this endpoint alone, until it is stopped.",
    });
    const buttons = element("div", { className: "qmt-buttons" }, ...secret.buttons);
    live.append(address, buttons, secret.box);
    return {
      update(view) {
        write(address, view.open ? `Base URL: ${view.address}` : "This endpoint is closed.");
        buttons.hidden = !view.open;
        if (!view.open) secret.hide();
      },
      close: secret.hide,
    };
  }),
};
