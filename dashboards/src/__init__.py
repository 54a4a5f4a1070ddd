"""The Grafana boards as code. `make dashboards` writes them to `dashboards/*.json`, which is what Grafana reads.

Apart from the package: nothing of it runs beside an engine. A board must never ask for what the daemon does not
publish; a test puts every query to a Prometheus that scrapes one.
"""

from __future__ import annotations

from dashboards.src import engine, fleet, itself

BOARDS = (fleet.BOARD, engine.BOARD, itself.BOARD)
