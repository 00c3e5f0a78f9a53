"""What may be said in params.json."""

from params.errors import Mistake, ParamsError
from params.plugin import Choice, Table
from params.reader import Loaded, load
from params.schema import Params

__all__ = ["Choice", "Loaded", "Mistake", "Params", "ParamsError", "Table", "load"]
