"""The exchange between guest and host, as data and state machines: no I/O, no clock of its own.

``frames`` cuts a byte stream into payloads, ``messages`` gives them types, ``exchange`` says
which message may come when, ``completions`` puts OpenAI chunks together.
"""
