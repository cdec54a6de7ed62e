"""`doorward serve`, `doorward run` and `doorward config`: the gateway itself."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Coroutine
from typing import Any

from gateway import logs
from gateway.cli import add_config, settings_of
from gateway.loops import Loop
from gateway.settings import Settings, load


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serving = commands.add_parser("serve", help="run the gateway with your own OPA, issuers and backends")
    add_config(serving)
    serving.set_defaults(command=_serve)

    embedded = commands.add_parser("run", help="run everything on this machine, with stand-ins where parts are missing")
    embedded.add_argument("--backend", choices=("sandbox", "docker"), default="sandbox")
    embedded.add_argument("--listen", default="127.0.0.1:2222", metavar="HOST:PORT")
    embedded.add_argument("--state", metavar="DIR", help="default: ~/.local/state/doorward/run")
    embedded.set_defaults(command=_embedded)

    config = commands.add_parser("config", help="about the settings").add_subparsers(required=True, metavar="COMMAND")
    config.add_parser("schema", help="the JSON Schema of the settings file").set_defaults(command=_schema)


def _serve(parsed: argparse.Namespace) -> int:
    from gateway.app import Gateway, serve

    settings = settings_of(parsed)
    logs.set_up(settings.log_level)

    def ready(running: Gateway) -> None:
        for fingerprint in running.host_keys.fingerprints:
            print(f"doorward: host key {fingerprint}", flush=True)
        if running.door:
            print(f"doorward: grants door on {running.door[0]}:{running.door[1]}", flush=True)
        if running.admin:
            print(f"doorward: admin API on {running.admin[0]}:{running.admin[1]}", flush=True)
        print(f"doorward: ready on {running.ssh[0]}:{running.ssh[1]}", flush=True)

    return _run(serve(settings, ready))


def _embedded(parsed: argparse.Namespace) -> int:
    from gateway.standalone import run

    logs.set_up(load(None).log_level)
    return _run(run(parsed.backend, parsed.listen, parsed.state))


def _run(coroutine: Coroutine[Any, Any, None]) -> int:
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(coroutine)
    return 0


def _schema(_parsed: argparse.Namespace) -> int:
    print(json.dumps(Settings.model_json_schema(), indent=2))
    return 0
