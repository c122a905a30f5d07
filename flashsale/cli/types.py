"""Types of command-line arguments."""

from decimal import Decimal, InvalidOperation

import click

ID = click.IntRange(1, 2**63 - 1)
UNITS = click.IntRange(-(2**31), 2**31 - 1)


class _Money(click.ParamType[Decimal]):
    """A decimal number, without rounding."""

    name = "decimal"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        try:
            amount = Decimal(str(value))
        except InvalidOperation:
            self.fail(f"{value!r} is not a decimal number such as 99.00", param, ctx)
        if not amount.is_finite():
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return amount


MONEY = _Money()
