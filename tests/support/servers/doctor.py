"""One check of the doctor, by itself."""

from shed.checks import Result
from shed.server.doctor.examine import examine
from shed.server.doctor.host import Check, Host


def found(host: Host, check: Check, name: str = "") -> Result:
    """Return the one row of a check, or the one called `name`; what is raised becomes a row as in the report."""
    (row,) = [row for row in examine(host, [("check", check)]) if not name or row.name == name]
    return row
