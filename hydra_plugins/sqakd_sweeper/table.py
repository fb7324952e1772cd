"""A sweeper for tables that are lists of rows: hydra/sweeper=table, chosen by every file in conf/table.

The class registers no configuration with Hydra, so other programs are not affected.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from omegaconf import OmegaConf


class TableSweeper(BasicSweeper):
    """Hydra's basic sweeper, over the cells of a table instead of the product of all overrides.

    Args:
        rows: see `sqakd.app.tables.table_cells`.
        params: see `sqakd.app.tables.table_cells`.
    """

    def __init__(self, rows: Sequence[str], params: dict[str, Any]) -> None:
        super().__init__(max_batch_size=None, params=params)
        self.rows = rows
        self.cells: list[list[str]] = []

    def sweep(self, arguments: list[str]) -> Any:
        """Run all cells of the table.

        Args:
            arguments: overrides of the command line.

        Raises:
            SystemExit: if the table and the command line do not fit together.
        """
        # Hydra imports this file at each start, so the project is imported only when a table is run.
        from sqakd.app.tables import TableError, table_cells

        assert self.hydra_context is not None
        try:
            self.cells = table_cells(self.rows, self.params, arguments, self.hydra_context.config_loader)
        except TableError as error:
            raise SystemExit(f"error: {error}") from error
        return super().sweep(arguments)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose each run once to find mistakes early; the plan of a table does that itself."""
        assert self.config is not None
        if not OmegaConf.select(self.config, "plan"):
            super().validate_batch_is_legal(batch)

    def split_arguments(self, overrides: Any, max_batch_size: int | None) -> list[list[list[str]]]:  # type: ignore[override]
        """Return the cells as one batch, where the basic sweeper would combine all overrides."""
        return [self.cells]
