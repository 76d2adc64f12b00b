# SymPy's own annotations are partial and wrong for expressions (`args` of an `Expr` are `Basic`,
# `fdiff` returns a class); checked against them, correct code fails. So SymPy counts as untyped.
from typing import Any

def __getattr__(name: str) -> Any: ...
