"""The magics. Each parses its flags, calls the facade, and says in words what came of it."""

from __future__ import annotations

import argparse
import json
import keyword
import sys
from collections.abc import Callable
from typing import Any

from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class, no_var_expand
from traitlets import Bool

from .. import flags
from ..errors import NotJoined, OptionInvalid
from ..harmless import shareable
from ..settings import HUB
from ..terminal import progress_bar
from .arguments import flags_and_prompt
from .display import Growing, Streaming, is_terminal
from .options import documented as _documented
from .options import options as _options
from .parsers import (
    CHAT,
    GUIDE,
    HISTORY,
    HOST,
    INVITE,
    JOIN,
    LEAVE,
    LINE_CHAT,
    MODELS,
    PARSERS,
    REVOKE,
    SERVE,
    STATUS,
    USAGE,
    switches,
)
from .state import STATE


@magics_class
class QmtMagics(Magics):
    """Host, join and chat."""

    auto_fallback = Bool(
        True, help="Whether a model that this kernel does not host is looked for on the mesh."
    ).tag(config=True)

    @no_var_expand
    @line_magic
    @_documented(GUIDE)
    def qmt(self, line: str) -> None:
        if _options(GUIDE, line) is None:
            return
        from .guide import guide

        print(guide(STATE, PARSERS))

    @no_var_expand
    @line_magic
    @_documented(HOST)
    def qmt_host(self, line: str) -> None:
        if (options := _options(HOST, line)) is None:
            return
        if options.stop:
            STATE.hosting().close()
            STATE.started = None
            print("Stopped hosting.")
            return
        from ..api import detect, host
        from ..facade import Limits

        self._free_name(options.save)
        if STATE.host is not None:
            if line.strip() and line != STATE.host_line:
                raise OptionInvalid(
                    f"This kernel hosts {', '.join(STATE.host.models)} already.",
                    next_step="%qmt_invite makes another invite; %qmt_host --stop ends hosting.",
                )
            # The same cell once more, as in Run All, or nothing but the magic: one more view.
            # Its guests are not to notice.
            self._introduce(options)
            return
        if flags.names_nothing(options) and (found := detect()):
            from ..offer import offer, offer_text

            command = f"%qmt_host {line.strip()}".strip()
            print(offer_text(offer(found, command, bool(options.aliases))))
            return
        STATE.started = host(
            **flags.host_arguments(options),
            limits=Limits(**flags.limits(options)),
            progress=self._progress(),
        )
        STATE.host_line = line
        self._introduce(options)

    @no_var_expand
    @line_magic
    @_documented(INVITE)
    def qmt_invite(self, line: str) -> None:
        if (options := _options(INVITE, line)) is None:
            return
        self._free_name(options.save)
        from ..facade import Limits

        made = STATE.hosting().new_invite(
            name=options.name,
            uses=options.uses,
            ttl=options.ttl,
            limits=Limits(**flags.limits(options)),
        )
        self._keep(options.save, made)
        from .hosting import hand_over

        hand_over(STATE, made, self.shell, options.link_file)

    @no_var_expand
    @line_magic
    @_documented(REVOKE)
    def qmt_revoke(self, line: str) -> None:
        if (options := _options(REVOKE, line)) is None:
            return
        from ..words import revoked_line

        print(revoked_line(STATE.hosting().revoke(options.which)))

    @no_var_expand
    @line_magic
    @_documented(USAGE)
    def qmt_usage(self, line: str) -> None:
        if (options := _options(USAGE, line)) is None:
            return
        from ..home import rows_of
        from ..tables import rows_csv, usage_table

        self._free_name(options.save)
        usage = STATE.hosting().usage()
        if options.json:
            self._say(json.dumps(usage, ensure_ascii=False))
        elif options.csv:
            self._say(rows_csv(rows_of(usage)).rstrip("\r\n"))
        elif options.save is None:
            print(usage_table(usage))
        self._keep(options.save, rows_of(usage))

    @no_var_expand
    @line_magic
    @_documented(JOIN)
    def qmt_join(self, line: str) -> None:
        if (options := _options(JOIN, line)) is None:
            return
        from ..api import join
        from ..words import joined_lines

        url = flags.link_or_hub(options.link, options.file) or self._ask_for_link()
        if options.link and options.link != HUB:
            print(
                "The link now stands in this notebook and in its history. "
                "%qmt_join without it asks for it unseen.",
                file=sys.stderr,
            )
        if STATE.mesh is not None and STATE.mesh.status():
            joined = STATE.mesh.join(url, name=options.name, timeout=options.timeout)
        else:
            STATE.mesh = join(url, name=options.name, timeout=options.timeout)
            # Of several services of a JupyterHub the first may not have admitted.
            there = min(STATE.mesh.status(), key=lambda each: not each["connected"])
            joined = there["host"]
        print("\n".join(joined_lines(STATE.mesh, joined)), flush=True)
        if not is_terminal(self.shell):
            self._show_joined()

    @no_var_expand
    @line_magic
    @_documented(MODELS)
    def qmt_models(self, line: str) -> None:
        if _options(MODELS, line) is None:
            return
        if STATE.host is None and STATE.mesh is None:
            raise NotJoined("There are no models: nothing is hosted or joined here.")
        from ..words import models_text

        print(models_text(STATE.host, STATE.mesh))

    @no_var_expand
    @line_magic
    @_documented(STATUS)
    def qmt_status(self, line: str) -> None:
        if _options(STATUS, line) is None:
            return
        from ..words import status_text

        self._say(status_text(STATE.host, STATE.mesh))

    @no_var_expand
    @line_magic
    @_documented(SERVE)
    def qmt_serve(self, line: str) -> None:
        if (options := _options(SERVE, line)) is None:
            return
        from . import serving

        if options.stop:
            serving.stop(STATE)
        else:
            serving.serve(STATE, options, self.shell)

    @no_var_expand
    @line_magic
    @_documented(LEAVE)
    def qmt_leave(self, line: str) -> None:
        if (options := _options(LEAVE, line)) is None:
            return
        count = STATE.leave(options.host)
        print(f"Left {count} mesh{'' if count == 1 else 'es'}.")

    @no_var_expand
    @line_cell_magic
    @_documented(CHAT)
    def chat(self, line: str, cell: str | None = None) -> None:
        if cell is None:
            options, cell = self._line_prompt(line)
        else:
            options = _options(CHAT, line)
        if options is None:
            return
        if not cell.strip():
            raise OptionInvalid(
                "There is nothing to ask.", next_step="Write the prompt below %%chat."
            )
        for name in (options.save, options.save_stats):
            self._free_name(name)
        if options.save is not None and options.save == options.save_stats:
            raise OptionInvalid("--save and --save-stats need two variables.")
        from . import prompt, structured
        from .chat import Interrupted, turn
        from .taking import Taking

        form = None if options.json is None else structured.form(options.json, self.shell.user_ns)
        asked, said = prompt.prepared(cell.strip(), options.context, options.fill, self.shell)
        taking = Taking(STATE, form, options.stats or options.save_stats is not None)
        said = "\n".join(filter(None, [said, taking.notice]))
        if said:
            print(said, flush=True)
        growing = Growing if form is None else structured.JsonGrowing
        screen = Streaming() if is_terminal(self.shell) else growing(self.shell)
        try:
            turn(STATE, options, asked, screen, taking)
        except (Interrupted, structured.AnswerInvalid) as ended:
            self._keep(options.save, ended.text)
            if options.save and ended.text:
                ended.next_step = f"{ended.next_step} Its text is in {options.save}.".strip()
            raise
        else:
            self._keep(options.save, taking.value)
        finally:
            if taking.figures is not None:
                self._keep(options.save_stats, taking.figures)
                if options.stats:
                    self._show(taking.table())

    @no_var_expand
    @line_magic
    @_documented(HISTORY)
    def qmt_history(self, line: str) -> None:
        if (options := _options(HISTORY, line)) is None:
            return
        self._free_name(options.save)
        from . import history

        shown = history.entries(STATE.conversation, STATE.answered, options.last)
        if options.export is not None:
            from ..settings import user_path

            history.export(shown, user_path(options.export), replace=options.force)
            print(f"The conversation is in {options.export}.")
        elif options.force:
            raise OptionInvalid("--force is for --export.")
        self._keep(options.save, history.messages(shown))
        if not (options.export or options.save or options.clear):
            self._show(history.bundle(shown))
        if options.clear:
            print(history.cleared_line(STATE.forget()))

    def _introduce(self, options: argparse.Namespace) -> None:
        from .hosting import introduce

        self._keep(options.save, STATE.hosting())
        introduce(STATE, self.shell, options.link_file)

    # What they share -----------------------------------------------------------------------

    def _say(self, text: str) -> None:
        """Print, without what a notebook that is passed on should not hold."""
        print(text if is_terminal(self.shell) else shareable(text), flush=True)

    @staticmethod
    def _line_prompt(line: str) -> tuple[argparse.Namespace | None, str]:
        """Of ``%chat``: the flags, and everything after them, which is the prompt."""
        leading, prompt = flags_and_prompt(line, switches(LINE_CHAT))
        return _options(LINE_CHAT, leading), prompt

    def _show(self, data: dict[str, str]) -> None:
        """Something that is whole: as a display, or in a terminal as text."""
        if is_terminal(self.shell):
            print(data["text/plain"])
            return
        from IPython.display import display

        display(data, raw=True)

    def _progress(self) -> Callable[[int, int], None]:
        if is_terminal(self.shell):
            return progress_bar("Getting the model")
        from .display import fetching

        return fetching()

    @staticmethod
    def _show_joined() -> None:
        try:
            from .panels import guest
        except ImportError as missing:
            print(f"There is no panel: {missing.name or 'anywidget'} cannot be imported.")
            return
        guest.show(STATE)

    @staticmethod
    def _ask_for_link() -> str:
        import getpass

        try:
            return getpass.getpass("Invite link: ")
        except (EOFError, NotImplementedError, RuntimeError):
            raise OptionInvalid(
                "There is no invite link, and nobody to ask for it.",
                next_step="Give --file PATH or set QMT_INVITE.",
            ) from None

    @staticmethod
    def _free_name(name: str | None) -> None:
        if name is not None and (not name.isidentifier() or keyword.iskeyword(name)):
            raise OptionInvalid(f"{name!r} is not a variable's name.")

    def _keep(self, name: str | None, value: Any) -> None:
        if name is not None:
            self._free_name(name)
            self.shell.user_ns[name] = value
