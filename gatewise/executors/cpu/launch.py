"""Run a request on the compiled kernel."""
from __future__ import annotations
from gatewise.executors.request import Request, Result

def obstacles(request: Request) -> list[str]:
    return ["under construction"]

def run(request: Request) -> Result:
    raise RuntimeError("under construction")
